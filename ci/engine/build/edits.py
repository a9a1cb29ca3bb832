"""Changes to files: as COPY where that says it, else in a step of ours (`tools/edit.sh`)."""

from __future__ import annotations

import posixpath
import shlex

from ci.engine.errors import FieldError
from ci.engine.files.changes import GLOB, Copy, Link, Make, MakeDir, Own, Remove, Stamp, name_pattern
from ci.engine.files.fs import Fs, Image, Pick, Sub
from ci.engine.files.tree import Entry, Tree, clean
from ci.engine.values import After, Ran

from .configuration import State
from .dockerfile import Stage, mount, paths, words
from .sources import Copying, Sources
from .text import TOOLS, folder, short

EDIT = f'RUN --network=none {TOOLS} ["/.al/bin/busybox", "sh", "/.al/bin/edit.sh", '


class Edits(Sources):
    """Lowers the operations on files."""

    def _operation(self, fs: Make | MakeDir | Copy | Remove | Link | Stamp | Own) -> Stage:
        stage = self._continue(fs.base)
        state = self._states.get(fs.base.key, State())
        scratch = not self._rooted(fs.base)
        lines: list[str] = []
        edited = isinstance(fs, Remove | Link | Stamp | Own)
        match fs:
            case Make():
                at = self._file(fs)
                stage.lines += self._parents(fs.path, fs.owner)
                stage = self._put(stage, fs, Copying("", at, f"/{fs.path}"))
            case MakeDir():
                if "/" in fs.path and fs.mode != 0o755:  # COPY makes the folders on the way, but with a mode of its own
                    said = f"mkdir -p {shlex.quote('/' + fs.path)} && chmod {fs.mode:o} {shlex.quote('/' + fs.path)}"
                    lines += self._edit(stage, state, scratch, ["dir", f"{fs.mode:o}", f"/{fs.path}"], said)
                    state, edited = self._after_edit(state, scratch), True
                elif fs.path:
                    at = f"files/{short(f'{fs.mode} {fs.path}')}"
                    self.files[at] = Tree({posixpath.basename(fs.path): Entry("dir", fs.mode)})
                    lines.append(f"COPY {paths(at + '/', folder(posixpath.dirname(fs.path)))}")
            case Copy():
                if self._blocked(fs):
                    stage, state = self._cleared(fs, stage, state, scratch)
                stage.lines += self._parents(clean(fs.path), fs.owner)
                copied = self._copy(fs)
                self._last(stage)
                stage = self._put(stage, fs, copied)
            case Remove():
                gone = [_removal(p) for p in fs.paths]
                lines += self._edit(stage, state, scratch, ["rm", *gone], _plain_remove(fs.paths))
                state = self._after_edit(state, scratch)
            case Link():
                made = f"mkdir -p {shlex.quote(posixpath.dirname('/' + fs.path))} && ln -s"
                said = f"{made} {shlex.quote(fs.target)} {shlex.quote('/' + fs.path)}"
                lines += self._edit(stage, state, scratch, ["link", fs.target, f"/{fs.path}"], said)
                state = self._after_edit(state, scratch)
            case Stamp():
                said = f"find / -xdev -exec touch -h -d @{fs.seconds} {{}} +"
                lines += self._edit(stage, state, scratch, ["stamp", str(fs.seconds)], said)
                state = self._after_edit(state, scratch)
            case Own():
                owner = self._owner(fs.base, fs.owner)
                before, whose = "", shlex.quote(owner)
                if _lone_name(owner):
                    before, whose = f"user=$(id -u {whose}) && ", '"$user:$user"'
                said = f"{before}chown -R -h {whose} {shlex.quote('/' + clean(fs.path))}"
                lines += self._edit(stage, state, scratch, ["own", owner, f"/{clean(fs.path)}"], said)
                state = self._after_edit(state, scratch)
        if scratch and not self.plain and edited:
            stage = self._outside(stage, lines)
            state = State()
        else:
            stage.lines += lines
        self._states[fs.key] = state
        return stage

    def _blocked(self, fs: Copy) -> bool:
        """Whether a folder is copied to where something was in the way. Most are not, and need no step of ours."""
        at = f"/{clean(fs.path)}".rstrip("/")
        return not fs.lone and any(f"{p}/".startswith(f"{at}/") or at.startswith(f"{p}/") for p in self.in_the_way)

    def _cleared(self, fs: Copy, stage: Stage, state: State, scratch: bool) -> tuple[Stage, State]:
        """A stage without what is in a folder's way, as on a Dagger engine, which lays the folder over all there is."""
        source, path = self._source(fs.source, fs.source_path, False)
        self._last(stage)
        seen = mount(type="bind", from_=source, source=path, target="/.al/src")
        lines = self._edit(stage, state, scratch, ["clear", f"/{clean(fs.path)}"], "")
        lines[-1] = lines[-1].replace(TOOLS, f"{TOOLS} {seen}", 1)
        if scratch:
            return self._outside(stage, lines), State()
        stage.lines += lines
        return stage, self._after_edit(state, scratch)

    def _put(self, stage: Stage, fs: Make | Copy, copied: Copying) -> Stage:
        """Copy files into a stage for their owner; the stage that has them."""
        owner = self._owner(fs.base, fs.owner)
        if _lone_name(owner):
            stage, copied = self._given(stage, copied, folder(posixpath.dirname(clean(fs.path))), owner)
            owner = ""
        stage.lines.append(copied.line(owner))
        return stage

    def _parents(self, path: str, owner: str) -> list[str]:
        """COPY gives folders that it makes on the way to the owner; they are root's, so they are made before."""
        above = posixpath.dirname(path.rstrip("/"))
        return [f"COPY {paths(self._empty_folder(0o755), folder(above))}"] if owner and above else []

    def _rooted(self, fs: Fs) -> bool:
        """Whether a file system is an image's root, where a step may run without leaving mount points behind."""
        while not isinstance(fs, Image | Ran):
            if fs.static or isinstance(fs, Sub | Pick | After) or not fs.sources:
                return False
            fs = fs.sources[0]
        return isinstance(fs, Image) or self._rooted(fs.step.base)

    def _edit(self, stage: Stage, state: State, scratch: bool, operation: list[str], said: str) -> list[str]:
        if self.plain:
            lines = [] if state.user in ("", "0", "root", "0:0") else ["USER 0:0"]
            return [*lines, f"RUN {said}"]
        lines = [] if scratch or state.user in ("", "0", "root", "0:0") else ["USER 0:0"]
        return [*lines, f"{EDIT}{words(['/r' if scratch else '', *operation])[1:]}"]

    @staticmethod
    def _after_edit(state: State, scratch: bool) -> State:
        return state if scratch or state.user in ("", "0", "root", "0:0") else State(state.env, "0:0", state.workdir)


def _lone_name(owner: str) -> bool:
    """Whether an owner is a user's name without a group, which a plain Dockerfile reads in its own way."""
    return bool(owner) and ":" not in owner and not owner.isdigit()


def _removal(path: str) -> str:
    where = clean(path)
    if not where:
        raise FieldError("unlinkat /: device or resource busy", lazy=True)
    if not GLOB.search(where):
        return f"/{where}"
    return "~" + name_pattern(where).pattern.replace("\\-", "-")


def _plain_remove(removed: tuple[str, ...]) -> str:
    return "rm -rf -- " + " ".join("*".join(shlex.quote(part) for part in f"/{clean(p)}".split("*")) for p in removed)
