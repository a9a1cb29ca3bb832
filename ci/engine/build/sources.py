"""Where files are copied and mounted from: build contexts, the main context, other stages."""

from __future__ import annotations

import posixpath
import re
import shlex
from dataclasses import dataclass, replace

from ci.engine.errors import Unsupported
from ci.engine.files.changes import Copy, Make
from ci.engine.files.fs import Fs, file_at, folder_at, plain
from ci.engine.files.tree import Blob, Entry, Tree, clean

from .dockerfile import Context, Stage, mount, paths
from .stages import Stages
from .text import TOOLS, edit, flags, folder, short

HELD = "/.held/"
"""Where files wait for their owner, in a stage that no image is made of."""


@dataclass(frozen=True)
class Copying:
    """One COPY: from a stage or context (empty: the main context), a path in it, to where."""

    origin: str
    source: str
    target: str
    mode: int | None = None

    def line(self, owner: str = "") -> str:
        """As an instruction."""
        origin = f"--from={self.origin} " if self.origin else ""
        return f"COPY {origin}{flags(owner, self.mode)}{paths(self.source, self.target)}"


class Sources(Stages):
    """Puts what is known here where a build can read it."""

    def _file(self, fs: Make) -> str:
        """A new file in the main context."""
        name = _name(fs.path)
        tree = Tree({name: Entry("file", fs.mode, blob=Blob.of(fs.content))})
        at = f"files/{short(tree.key)}"
        self.files[at] = tree
        return f"{at}/{name}"

    def _empty_folder(self, mode: int) -> str:
        at = f"files/folder-{mode:o}"
        self.files[at] = Tree({"d": Entry("dir", mode)})
        return f"{at}/d/"

    def _tree(self, tree: Tree, label: str = "") -> tuple[str, str]:
        """Where a tree can be copied from: a context and a path in it, or a stage where there are owners to keep."""
        word = re.sub(r"[^a-z0-9]+", "-", label.lower()).strip("-") or "tree"
        name, path = f"{word}-{tree.key[:8]}", "/"
        if any(e.stamped for e in tree.entries.values()):
            # to BuildKit equal contents are equal whatever their times; another folder's name tells them apart
            path = f"/{tree.key[:12]}/"
            wrapped = {path.strip("/"): tree.entries[""]}
            wrapped |= {f"{path[1:]}{p}": e for p, e in tree.entries.items() if p}
            self.contexts.setdefault(name, Context(name, Tree(wrapped), label=label))
        else:
            self.contexts.setdefault(name, Context(name, tree, label=label))
        owned = [(p, e) for p, e in tree.walk() if (e.uid, e.gid) != (0, 0)]
        if not owned:
            return name, path
        if self.plain:
            raise Unsupported("Files that belong to several owners, in a plain Dockerfile", "Use 'agent-loop call'.")
        text = "".join(f"{e.uid}:{e.gid} {p}\n" for p, e in owned)
        at = f"files/owners-{short(text)}"
        self.files[at] = Tree({"list": Entry("file", 0o644, blob=Blob.of(text.encode()))})
        source = self._new()
        source.lines.append(f"COPY --from={name} {paths(path, '/')}")
        listed = mount(type="bind", source=f"{at}/list", target="/.al/list")
        command = f"RUN --network=none {TOOLS} {listed} {edit('/r', 'owners', '/.al/list')}"
        return self._outside(source, [command]).name, "/"

    def _copy_tree(self, stage: Stage, tree: Tree, target: str) -> None:
        name, path = self._tree(tree)
        if self.stages[-1] is not stage:  # the tree needed stages of its own
            self._last(stage)
        stage.lines.append(f"COPY --from={name} {paths(path, target)}")

    def _source(self, fs: Fs, path: str, lone: bool) -> tuple[str, str]:
        """Where a folder or file can be copied or mounted from: `from` (empty: the main context) and path."""
        if not fs.static:
            return self._refs[fs.key].name, ("/" + clean(path)) + ("" if lone else "/" if path else "")
        whole = plain(fs, self.session.builder.trees)
        label = getattr(fs, "label", "")
        if not lone:
            return self._tree(folder_at(whole, path), label)
        entry = file_at(whole, path)
        name = _name(path)
        tree = Tree({name: entry})
        if _special(entry):
            source, inside = self._tree(tree, label)
            return source, f"{inside}{name}"
        at = f"files/{short(tree.key)}"
        self.files[at] = tree
        return "", f"{at}/{name}"

    def _copy(self, fs: Copy) -> Copying:
        source, path = self._source(fs.source, fs.source_path, fs.lone)
        if fs.lone:
            target = "/" + clean(fs.path)
            if fs.path.endswith("/") or target == "/":
                target = posixpath.join(target, fs.name)
        else:
            target = folder(clean(fs.path))
            path = path if path.endswith("/") else path + "/"
        mode = fs.mode if fs.lone or fs.within == "directory" else None
        return Copying(source, path, target, mode)

    def _given(self, stage: Stage, copied: Copying, above: str, user: str) -> tuple[Stage, Copying]:
        """Files that belong to a user known by name alone, in a plain Dockerfile; and a stage to copy them to.

        There a name alone stands for the user's own group too, here for the group of the user's number. So they are
        given away in a stage beside, which has the user and is thrown away. `above`: the folder that was there before;
        what is made below it is the user's too.
        """
        beside = self._new(stage.name)
        inside = HELD + copied.target.removeprefix(above)
        name = shlex.quote(user)
        given = f'user=$(id -u {name}) && chown -R -h "$user:$user" {HELD}'
        beside.lines += [replace(copied, target=inside).line(), "USER 0:0", f"RUN {given}"]
        return self._new(stage.name), Copying(beside.name, HELD, above)

    def _outside(self, source: Stage, lines: list[str]) -> Stage:
        """Run instructions on a tree that is no root: below /r, so that mount points do not become part of it."""
        work = self._new(word="edit")
        work.lines += [f"COPY --from={source.name} {paths('/', '/r/')}", *lines]
        clean_stage = self._new()
        clean_stage.lines.append(f"COPY --from={work.name} {paths('/r/', '/')}")
        return clean_stage


def _name(path: str) -> str:
    """A file's name in the build context: its own, unless BuildKit would read more than a name from it there."""
    name = posixpath.basename(path)
    return name if re.fullmatch(r"[\w.@+-]+", name) else "file"


def _special(entry: Entry) -> bool:
    """Whether a file has what a build context cannot carry: an owner, or a time that counts."""
    return (entry.uid, entry.gid) != (0, 0) or entry.stamped
