"""Digests of files and folders, as BuildKit's content hash makes them.

A file's is the hash of its header (mode, owner, size, link; no name, no time) and content; a folder's the hash
of its entries' paths and digests in order. Source: the recorded answers (`dir-digest*`, `file-digest`).
"""

from __future__ import annotations

import hashlib

from .tree import Entry, Tree

TYPES = {"file": "0", "link": "2", "dir": "5"}


def _header(entry: Entry) -> bytes:
    size = entry.size if entry.kind == "file" else 0
    mode = 0o777 if entry.kind == "link" else entry.mode
    pairs = (
        ("name", ""), ("mode", str(mode)), ("uid", str(entry.uid)), ("gid", str(entry.gid)), ("size", str(size)),
        ("typeflag", TYPES.get(entry.kind, "0")), ("linkname", entry.target), ("uname", ""), ("gname", ""),
        ("devmajor", "0"), ("devminor", "0"),
    )  # fmt: skip
    return "".join(k + v for k, v in pairs).encode()


def file_digest(entry: Entry, *, metadata: bool = True) -> str:
    """`sha256:...` of a file; without `metadata` the hash of its content's hash."""
    if not metadata:
        return f"sha256:{hashlib.sha256(bytes.fromhex(entry.blob.sha256)).hexdigest()}"
    digest = hashlib.sha256(_header(entry))
    if entry.kind == "file":
        digest.update(entry.blob.read())
    return f"sha256:{digest.hexdigest()}"


def tree_digest(tree: Tree) -> str:
    """`sha256:...` of a folder with all below it."""
    children: dict[str, list[str]] = {}
    for path in tree.entries:
        if path:
            children.setdefault(path.rpartition("/")[0], []).append(path)

    def folder(path: str) -> str:
        digest = hashlib.sha256()
        header = hashlib.sha256(_header(tree.entries[path])).hexdigest()
        digest.update(b"\0" + f"sha256:{header}".encode())
        for child in sorted(children.get(path, []), key=lambda p: p.encode()):
            entry = tree.entries[child]
            name = child.rpartition("/")[2]
            below = folder(child) if entry.kind == "dir" else file_digest(entry)
            digest.update(b"\0" + name.encode() + below.encode())
        return f"sha256:{digest.hexdigest()}"

    return folder("")
