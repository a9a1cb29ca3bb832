"""How a build is asked about paths, and how its answers are read: the words of `tools/probe.sh`."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Hashable
from dataclasses import replace

from ci.engine.files import archive
from ci.engine.files.tree import Blob, Entry, Tree, clean
from ci.engine.needs import Listing, Look, Need, Pull

KINDS = {0o100000: "file", 0o040000: "dir", 0o120000: "link"}
NOWHERE = Tree({"": Entry("other")})


def key(need: Need) -> Hashable:
    """What tells one question from another; None where an answer is not kept."""
    match need:
        case Look():
            return "look", need.fs.key, need.path, need.follow
        case Listing():
            return "list", need.fs.key, need.path, need.depth
        case Pull():
            return "pull", need.fs.key, need.path
        case _:
            return None


def ask(number: int, need: Look | Listing | Pull) -> str:
    path = "/" + clean(need.path)
    match need:
        case Look():
            return f"{number} {'look' if need.follow else 'lstat'} {path}"
        case Listing():
            return f"{number} list {need.depth or 0} {path}"
        case Pull():
            return f"{number} pull {path}"


def _stat_line(line: str) -> tuple[Entry, str]:
    raw, size, uid, gid, mtime, name = line.split("|", 5)
    mode = int(raw, 16)
    entry = Entry(KINDS.get(mode & 0o170000, "other"), mode & 0o7777, int(uid), int(gid), float(mtime), Blob(int(size)))
    return entry, name


def looked(tree: Tree, name: str) -> tuple[str, Entry] | None:
    text = tree.text(name)
    if not text:
        return None
    first, _, target = text.partition("\n")
    entry, path = _stat_line(first)
    if entry.kind == "link":
        entry = replace(entry, target=target.rstrip("\n"))
    return clean(path), entry


def listed(tree: Tree, name: str) -> Tree:
    text = tree.text(name)
    if not text:
        return NOWHERE
    entries = {clean(path): entry for entry, path in map(_stat_line, text.splitlines())}
    links = iter((tree.text(f"{name}.links") or "").splitlines())
    for link, target in zip(links, links, strict=False):
        path = clean(link)
        if path in entries:
            entries[path] = replace(entries[path], target=target)
    return Tree(entries)


def pulled(tree: Tree, name: str) -> Tree:
    if name not in tree.entries:
        return NOWHERE
    blob = tree.entries[name].blob
    about = tree.text(f"{name}.file")
    if about is not None:
        entry, _ = _stat_line(about.strip())
        return Tree({"": replace(entry, blob=blob)})
    with tarfile.open(blob.path) if blob.path else tarfile.open(fileobj=io.BytesIO(blob.read())) as opened:
        spool = blob.path.parent / f"{blob.path.name}.d" if blob.path else None
        if spool is not None:
            spool.mkdir(exist_ok=True)
        return Tree(dict(archive.entries(opened, spool=spool)))
