"""File systems to Dockerfile stages.

`Lowering` takes expressions that rest on images and steps and writes one stage for each that is used more than
once; a chain used once continues in its base's stage, as a person would write it. What is known here goes in as
build contexts. Two dialects: for the engine (steps run under our script, with results), and `plain` for people
(`agent-loop dockerfile`), which uses nothing of ours.
"""

from __future__ import annotations

import posixpath
import re
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from . import execs
from .dockerfile import Context, Rendered, Stage, mount, paths, quote, words
from ci.engine.errors import FieldError, Unsupported
from ci.engine.files.fs import GLOB, Copy, Fs, Image, Link, Make, MakeDir, Own, Pick, Remove, Stamp, Sub, file_at, folder_at, name_pattern, plain
from ci.engine.files.tree import Blob, Entry, Tree, clean
from ci.engine.values import After, CacheMount, Container, Mount, Pairs, Ran, SecretMount, Step, TempMount, TreeMount, put

if TYPE_CHECKING:
    from ci.engine.secrets import Secret
    from ci.engine.session import Session

TOOLS = "--mount=type=bind,source=tools,target=/.al/bin"
EDIT = f'RUN --network=none {TOOLS} ["/.al/bin/busybox", "sh", "/.al/bin/edit.sh", '
OUTBOX = "outbox"
NOTHING = "/.al-non[e]"
"""A pattern that matches nothing: copying it makes a stage be built and brings nothing."""
GPU = (
    "GPU steps need a BuildKit with CDI devices (0.20 or later). "
    "Train with 'make train-gemma-2b', or on a Dagger engine with GPUs: 'dagger call train --gpu'."
)


@dataclass(frozen=True)
class State:
    """What a stage's configuration holds at its end."""

    env: Pairs = ()
    user: str = ""
    workdir: str = ""


class Lowering:
    """One Dockerfile in the making."""

    def __init__(
        self,
        session: Session,
        *,
        plain: bool = False,
        owners: Callable[[Fs, str], tuple[int, int]] | None = None,
        again: dict[str, int] | None = None,
    ) -> None:
        self.session = session
        self.plain = plain
        self.owners = owners
        """Ids of `user[:group]` by a file system's own passwd file, for mounts that take only numbers."""
        self.again = again or {}
        self.stages: list[Stage] = []
        self.steps: dict[str, Step] = {}
        """Which steps a stage holds, by `stage/key`."""
        self.contexts: dict[str, Context] = {}
        self.files: dict[str, Tree] = {}
        self.secrets: dict[str, Secret | str | None] = {}
        """Secret mounts by id: a secret, a text of ours, or None for the host's certificates."""
        self.notes: list[str] = []
        self._refs: dict[str, Stage] = {}
        self._states: dict[str, State] = {}
        self._uses: dict[str, int] = {}
        self._roots: list[Fs] = []

    # What can be asked for

    def want(self, *roots: Fs) -> None:
        """Say beforehand what will be targets, so that a stage that is used twice is not continued."""
        seen: set[str] = set()
        todo = list(roots)
        for root in roots:
            self._uses[root.key] = self._uses.get(root.key, 0) + 2
        while todo:
            fs = todo.pop()
            if fs.key in seen or fs.static:
                continue
            seen.add(fs.key)
            for source in fs.sources:
                self._uses[source.key] = self._uses.get(source.key, 0) + 1
                todo.append(source)

    def target(self, fs: Fs) -> str:
        """The stage that holds a file system and nothing else."""
        if fs.key not in self._uses:
            self.want(fs)
        return self._stage_of(fs).name

    def image(self, container: Container) -> str:
        """The stage of a container as an image: its files and all of its configuration."""
        if container.extra.get("gpus") and not self.plain:
            raise FieldError(GPU)
        if container.fs.key not in self._uses:
            self.want(container.fs)
        base = self._stage_of(container.fs)
        stage = Stage(self._name("image"), base.name)
        self.stages.append(stage)
        stage.lines += configuration(container, self._states.get(container.fs.key, State()))
        return stage.name

    def outcome(self, step: Step) -> str:
        """A stage whose folder `/.al-r` holds a step's results.

        It continues from the step's own stage, which orders the two without hashing any content. The cache mount's
        id is an argument too: BuildKit leaves it out of what tells steps apart.
        """
        ran = Ran(step)
        stage = Stage(self._name("results"), self.target(ran))
        if self._states[ran.key].user:
            stage.lines.append("USER 0:0")
        stage.lines.append(f"RUN --network=none {TOOLS} {self._out(step)} {_edit('', 'results', self._id(step))}")
        self.stages.append(stage)
        return stage.name

    def left(self, step: Step, nonce: str) -> str:
        """As `outcome`, but of a step that failed: nothing runs it, what it left is read."""
        stage = Stage(self._name("results"), "scratch")
        stage.lines.append(f"RUN --network=none {TOOLS} {self._out(step)} {_edit('', 'results', nonce)}")
        self.stages.append(stage)
        return stage.name

    def probe(self, fs: Fs, asks: Sequence[str]) -> str:
        """A stage whose folder `/.al-answers` has the answers of `tools/probe.sh`."""
        source = self.target(fs)
        stage = Stage(self._name("probe"), "scratch")
        text = "".join(f"{a}\n" for a in asks)
        at = f"asks/{_short(text)}"
        self.files[at] = Tree({"asks": Entry("file", 0o644, blob=Blob.of(text.encode()))})
        asked = mount(type="bind", source=at, target="/.al/step")
        seen = mount(type="bind", from_=source, source="/", target="/.al/root")
        stage.lines.append(f'RUN --network=none {TOOLS} {asked} {seen} ["/.al/bin/busybox", "sh", "/.al/bin/probe.sh"]')
        self.stages.append(stage)
        return stage.name

    def collect(self, parts: Sequence[tuple[str, str]]) -> str:
        """The last stage: `parts` are stages and the folder of each that is wanted, laid into /0, /1, ..."""
        stage = Stage(self._name("answers"), "scratch")
        for number, (name, folder) in enumerate(parts):
            source = words([NOTHING, f"/{number}/"]) if folder == NOTHING else paths(folder, f"/{number}/")
            stage.lines.append(f"COPY --from={name} {source}")
        self.stages.append(stage)
        return stage.name

    def rendered(self, target: str) -> Rendered:
        """The Dockerfile, with the stages that the target needs."""
        needed = self._needed(target)
        text = "\n".join(s.text() for s in self.stages if s.name in needed)
        secrets = tuple(h for h, s in self.secrets.items() if not (self.plain and s is None))
        return Rendered(
            text, target, tuple(self.contexts.values()), tuple(self.files.items()), secrets, tuple(self.notes)
        )

    def _needed(self, target: str) -> set[str]:
        by_name = {s.name: s for s in self.stages}
        needed: set[str] = set()
        todo = [target]
        while todo:
            name = todo.pop()
            if name in needed or name not in by_name:
                continue
            needed.add(name)
            stage = by_name[name]
            todo.append(stage.base)
            todo += re.findall(r"(?:--|,)from=([\w.-]+)", "\n".join(stage.lines))
        return needed

    # Stages

    def _name(self, word: str) -> str:
        taken = sum(s.name.startswith(f"{word}-") for s in self.stages)
        return f"{word}-{taken}" if taken or word not in ("image",) else f"{word}-0"

    def _new(self, base: str = "scratch", word: str = "s", platform: str = "") -> Stage:
        stage = Stage(f"{word}{len(self.stages)}", base, platform=platform)
        self.stages.append(stage)
        return stage

    def _stage_of(self, fs: Fs) -> Stage:
        """The stage of a file system, with all stages that it needs made before."""
        todo = [fs]
        while todo:
            here = todo[-1]
            if here.key in self._refs:
                todo.pop()
                continue
            missing = [s for s in here.sources if not s.static and s.key not in self._refs]
            if missing and not here.static:
                todo += missing
                continue
            todo.pop()
            self._refs[here.key] = self._lower(here)
        return self._refs[fs.key]

    def _lower(self, fs: Fs) -> Stage:
        if fs.static:
            stage = self._new()
            tree = plain(fs, self.session.builder.trees)
            if tree.entries.keys() != {""}:
                self._copy_tree(stage, tree, "/")
            return stage
        match fs:
            case Image():
                return self._image(fs)
            case Ran():
                return self._ran(fs)
            case After():
                return self._after(fs)
            case Sub():
                stage = self._new()
                stage.lines.append(f"COPY --from={self._refs[fs.base.key].name} {paths(_folder(fs.path), '/')}")
                return stage
            case Pick():
                stage = self._new()
                source = self._refs[fs.base.key].name
                stage.lines.append(f"COPY --from={source} {paths('/' + fs.path, '/' + fs.name)}")
                return stage
            case Make() | MakeDir() | Copy() | Remove() | Link() | Stamp() | Own():
                return self._operation(fs)
            case _:
                raise Unsupported(
                    f"{type(fs).__name__} of files that are not built yet, in a Dockerfile",
                    "Build it with 'agent-loop call' or on a Dagger engine.",
                )

    def _continue(self, base: Fs) -> Stage:
        """A stage to add instructions to: the base's own if nothing else uses that."""
        if base.static:
            stage = self._lower(base)
            self._states.setdefault(base.key, State())
            return stage
        stage = self._refs[base.key]
        if self._uses.get(base.key, 2) > 1:
            return self._new(stage.name)
        self.stages.remove(stage)  # nothing refers to it: it may stand after what it is about to use
        self.stages.append(stage)
        return stage

    def _image(self, fs: Image) -> Stage:
        foreign = fs.platform if fs.platform != self.session.builder.platform else ""
        reference = fs.reference
        if fs.context:
            if self.plain:
                reference = fs.address or fs.reference
                note = f"{reference} is a base image made here; a plain build takes it from its registry."
                if note not in self.notes:
                    self.notes.append(note)
            else:
                reference = f"base-{_short(fs.key)}"
                self.contexts[reference] = Context(reference, address=fs.context)
        stage = self._new(reference, platform=foreign)
        config = self.session.images.of(fs).config
        env = tuple((n, v) for n, _, v in (e.partition("=") for e in config.get("Env") or []))
        self._states[fs.key] = State(env, config.get("User") or "", config.get("WorkingDir") or "")
        return stage

    def _operation(self, fs: Make | MakeDir | Copy | Remove | Link | Stamp | Own) -> Stage:
        stage = self._continue(fs.base)
        state = self._states.get(fs.base.key, State())
        scratch = not self._rooted(fs.base)
        lines: list[str] = []
        match fs:
            case Make():
                at = self._file(fs)
                lines += self._parents(fs.path, fs.owner)
                lines.append(f"COPY {_flags(self._owner(fs.base, fs.owner))}{paths(at, '/' + fs.path)}")
            case MakeDir():
                if fs.path:
                    at = f"files/{_short(f'{fs.mode} {fs.path}')}"
                    self.files[at] = Tree({posixpath.basename(fs.path): Entry("dir", fs.mode)})
                    lines.append(f"COPY {paths(at + '/', _folder(posixpath.dirname(fs.path)))}")
            case Copy():
                lines += self._parents(clean(fs.path), fs.owner)
                lines.append(self._copy(fs))
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
                said = f"chown -R -h {owner} {shlex.quote('/' + clean(fs.path))}"
                lines += self._edit(stage, state, scratch, ["own", owner, f"/{clean(fs.path)}"], said)
                state = self._after_edit(state, scratch)
        if scratch and not self.plain and isinstance(fs, Remove | Link | Stamp | Own):
            stage = self._outside(stage, lines)
            state = State()
        else:
            stage.lines += lines
        self._states[fs.key] = state
        return stage

    def _parents(self, path: str, owner: str) -> list[str]:
        """COPY gives folders that it makes on the way to the owner; they are root's, so they are made before."""
        above = posixpath.dirname(path.rstrip("/"))
        return [f"COPY {paths(self._empty_folder(0o755), _folder(above))}"] if owner and above else []

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

    def _outside(self, source: Stage, lines: list[str]) -> Stage:
        """Run instructions on a tree that is no root: below /r, so that mount points do not become part of it."""
        work = self._new(word="edit")
        work.lines += [f"COPY --from={source.name} {paths('/', '/r/')}", *lines]
        clean_stage = self._new()
        clean_stage.lines.append(f"COPY --from={work.name} {paths('/r/', '/')}")
        return clean_stage

    # Sources

    def _file(self, fs: Make) -> str:
        """A new file in the main context."""
        tree = Tree({posixpath.basename(fs.path): Entry("file", fs.mode, blob=Blob.of(fs.content))})
        at = f"files/{_short(tree.key)}"
        self.files[at] = tree
        return f"{at}/{posixpath.basename(fs.path)}"

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
        at = f"files/owners-{_short(text)}"
        self.files[at] = Tree({"list": Entry("file", 0o644, blob=Blob.of(text.encode()))})
        source = self._new()
        source.lines.append(f"COPY --from={name} {paths(path, '/')}")
        listed = mount(type="bind", source=f"{at}/list", target="/.al/list")
        command = f"RUN --network=none {TOOLS} {listed} {_edit('/r', 'owners', '/.al/list')}"
        return self._outside(source, [command]).name, "/"

    def _copy_tree(self, stage: Stage, tree: Tree, target: str) -> None:
        name, path = self._tree(tree)
        if self.stages[-1] is not stage:  # the tree needed stages of its own
            self.stages.remove(stage)
            self.stages.append(stage)
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
        name = posixpath.basename(path) or "file"
        tree = Tree({name: entry})
        if _special(entry):
            source, inside = self._tree(tree, label)
            return source, f"{inside}{name}"
        at = f"files/{_short(tree.key)}"
        self.files[at] = tree
        return "", f"{at}/{name}"

    def _copy(self, fs: Copy) -> str:
        source, path = self._source(fs.source, fs.source_path, fs.lone)
        if fs.lone:
            target = "/" + clean(fs.path)
            if fs.path.endswith("/") or target == "/":
                target = posixpath.join(target, fs.name)
        else:
            target = _folder(clean(fs.path))
            path = path if path.endswith("/") else path + "/"
        mode = fs.mode if fs.lone or fs.within == "directory" else None
        origin = f"--from={source} " if source else ""
        return f"COPY {origin}{_flags(self._owner(fs.base, fs.owner), mode)}{paths(path, target)}"

    # Steps

    def _ran(self, fs: Ran) -> Stage:
        step = fs.step
        if not step.args:
            raise FieldError("no command has been set", lazy=True)
        if step.gpus and not self.plain:
            raise FieldError(GPU)
        if any(getattr(m, "owner", "") for m in step.mounts):  # their stages start from the base's too
            self._uses[step.base.key] = self._uses.get(step.base.key, 0) + 1
        mounts = [self._mount(step, m) for m in step.mounts]
        stage = self._continue(step.base)
        state = self._states.get(step.base.key, State())
        lines, state = settings(step, state)
        stage.lines += lines
        if self.plain:
            stage.lines.append(self._plain_run(step, mounts))
        else:
            stage.lines.append(self._run(step, mounts))
        self.steps[f"{stage.name}/{step.key}"] = step
        self._states[fs.key] = state
        return stage

    def _run(self, step: Step, mounts: list[str]) -> str:
        at = f"steps/{step.key[:16]}"
        files = {"step.sh": Entry("file", 0o644, blob=Blob.of(execs.step_file(step).encode()))}
        if step.stdin is not None:
            files["stdin"] = Entry("file", 0o644, blob=Blob.of(step.stdin.encode()))
        self.files[at] = Tree(files)
        options = [*mounts, TOOLS, mount(type="bind", source=at, target="/.al/step"), self._out(step)]
        self.secrets["agent-loop-ca"] = None
        options.append(mount(type="secret", id="agent-loop-ca", target="/.al/ca.pem", mode="0444"))
        for _, secret in step.secrets:
            self.secrets[secret.handle] = secret
            options.append(
                mount(
                    type="secret", id=secret.handle, target=f"/.al/secret/{secret.handle}", mode="0444", required="true"
                )
            )
        if step.volatile:
            handle = f"volatile-{step.key[:16]}"
            self.secrets[handle] = execs.volatile_file(step)
            options.append(mount(type="secret", id=handle, target="/.al/volatile", mode="0444"))
        command = words(["/.al/bin/busybox", "sh", "/.al/bin/exec.sh", self._id(step)])
        return f"RUN {' '.join(dict.fromkeys(options))} {command}"

    def _id(self, step: Step) -> str:
        return execs.cache_id(step, self.again.get(step.key, 0))

    def _out(self, step: Step) -> str:
        """The cache mount of a step's results. Its folder comes from a stage: what `mode=` asks for is cut by the
        daemon's umask, and the step's user must be able to write."""
        if OUTBOX not in (s.name for s in self.stages):
            folder = posixpath.dirname(self._empty_folder(0o777).rstrip("/"))
            stage = Stage(OUTBOX, "scratch", [f"COPY {paths(folder + '/', '/')}"])
            self.stages.insert(0, stage)
        return mount(type="cache", id=self._id(step), target=execs.OUT, from_=OUTBOX, source="/d")

    def _mount(self, step: Step, mounted: Mount) -> str:
        match mounted:
            case TreeMount():
                source, path = self._source(mounted.fs, mounted.source_path, mounted.lone)
                if mounted.owner:
                    source, path = self._owned(step.base, source, path, mounted.owner, mounted.lone)
                rw = not mounted.read_only
                return mount(type="bind", from_=source, source=path, target=mounted.path, rw=rw)
            case CacheMount():
                return self._cache(step, mounted)
            case TempMount():
                size = str(mounted.size) if mounted.size else None
                return mount(type="tmpfs", target=mounted.path, size=size)
            case SecretMount():
                self.secrets[mounted.secret.handle] = mounted.secret
                uid, gid = self._ids(step.base, mounted.owner) if mounted.owner else (0, 0)
                return mount(
                    type="secret",
                    id=mounted.secret.handle,
                    target=mounted.path,
                    mode=f"{mounted.mode:04o}",
                    uid=str(uid) if uid else None,
                    gid=str(gid) if gid else None,
                    required="true",
                )
            case _:
                raise TypeError(type(mounted).__name__)

    def _cache(self, step: Step, mounted: CacheMount) -> str:
        volume = mounted.volume
        source = mounted.source or volume.source
        word = re.sub(r"[^A-Za-z0-9_.-]", "_", volume.key)
        name = word if word == volume.key and word else f"{word}-{_short(volume.key)}"
        if mounted.sharing != "SHARED":
            name += f".{mounted.sharing.lower()}"
        options: dict[str, str | None] = {
            "type": "cache",
            "id": name,
            "target": mounted.path,
            "sharing": None if mounted.sharing == "SHARED" else mounted.sharing.lower(),
        }
        owner = mounted.owner
        if source is None and (not owner or re.fullmatch(r"\d+(:\d+)?", owner)):
            uid, _, gid = owner.partition(":")
            return mount(**options, uid=uid or None, gid=(gid or uid) or None)
        if source is not None:
            origin, path = self._source(source.fs, source.path, False)
        else:
            origin, path = "", self._empty_folder(0o755)
        # a stage, since the volume is told apart by what fills it, and a context is another one every time
        origin, path = self._owned(step.base, origin, path, owner, False)
        return mount(**options, from_=origin, source=path)

    def _owned(self, base: Fs, source: str, path: str, owner: str, lone: bool) -> tuple[str, str]:
        """A copy of a folder or file that belongs to somebody, by the names of `base`."""
        stage = self._new("scratch" if base.static or not self.plain else self._refs[base.key].name, word="own")
        owner = self._owner(base, owner)
        origin = f"--from={source} " if source else ""
        target = "/.al-own/file" if lone else "/.al-own/"
        stage.lines.append(f"COPY {origin}{_flags(owner)}{paths(path, target)}")
        return stage.name, target.rstrip("/")

    def _owner(self, base: Fs, owner: str) -> str:
        """`user[:group]` for COPY, which takes names that nobody has without a word: they become numbers here."""
        if not owner or (self.plain and self.owners is None):
            return owner
        uid, gid = self._ids(base, owner)
        return f"{uid}:{gid}"

    def _ids(self, base: Fs, owner: str) -> tuple[int, int]:
        user, _, group = owner.partition(":")
        if user.isdigit() and (not group or group.isdigit()):
            return int(user), int(group or user)
        if self.owners is None:
            raise Unsupported(f"The owner name {owner} of a mount, in a plain Dockerfile", "Give its number.")
        return self.owners(base, owner)

    def _after(self, fs: After) -> Stage:
        """What a mount holds after a step: what it held before, with what the step left laid over it."""
        step, mounted = fs.step, fs.step.mounts[fs.index]
        assert isinstance(mounted, TreeMount)
        if self.plain:
            raise Unsupported(
                f"What a step writes into the mount {mounted.path}, in a plain Dockerfile",
                "Write it outside of the mount.",
            )
        source, path = self._source(mounted.fs, mounted.source_path, mounted.lone)
        if mounted.owner:
            source, path = self._owned(step.base, source, path, mounted.owner, mounted.lone)
        ran = Ran(step)
        left = self._new(self._refs[ran.key].name, word="left")
        if self._states[ran.key].user:
            left.lines.append("USER 0:0")
        told = _edit("", "left", str(fs.index), self._id(step))
        left.lines.append(f"RUN --network=none {TOOLS} {self._out(step)} {told}")
        work = self._new(word="edit")
        origin = f"--from={source} " if source else ""
        work.lines += [
            f"COPY {origin}{paths(path, '/r/file' if mounted.lone else '/r/')}",
            f"COPY --from={left.name} {paths('/.al-left/', '/left/')}",
            f"RUN --network=none {TOOLS} {_edit('/r', 'mount')}",
        ]
        stage = self._new()
        stage.lines.append(f"COPY --from={work.name} {paths('/r/', '/')}")
        return stage

    def _plain_run(self, step: Step, mounts: list[str]) -> str:
        """A step without the engine: as one would write it, as far as a Dockerfile goes."""
        prelude: list[str] = []
        for name, secret in step.secrets:
            self.secrets[secret.handle] = secret
            at = f"/run/secrets/{secret.handle}"
            mounts = [*mounts, mount(type="secret", id=secret.handle, mode="0444", required="true")]
            prelude.append(f'{name}="$(cat {at})"; export {name};')
        prelude += [f"export {n}={shlex.quote(v)};" for n, v in step.volatile]
        options = "".join(f"{m} " for m in mounts)
        if step.stdin is not None:
            prelude.append(f"printf %s {shlex.quote(step.stdin)} |")
        tail = [
            f"{mark}{shlex.quote(path)}"
            for mark, path in (("<", step.redirect_stdin), (">", step.redirect_stdout), ("2>", step.redirect_stderr))
            if path
        ]
        if step.expect == "ANY":
            tail.append("|| true")
        elif step.expect == "FAILURE":
            prelude.insert(0, "!")
        if not prelude and not tail:
            return f"RUN {options}{words(step.args)}"
        line = " ".join([*prelude, *[shlex.quote(a) for a in step.args], *tail])
        return f"RUN {options}{words(['/bin/sh', '-c', line])}"


def settings(step: Step, state: State) -> tuple[list[str], State]:
    """Instructions that bring a stage's configuration to what a step needs, and what it is then."""
    lines: list[str] = []
    env = state.env
    known = dict(env)
    for name, value in step.env:
        if known.get(name) != value and execs.in_dockerfile(name, value):
            lines.append(f"ENV {name}={quote(value)}")
            env = put(env, name, value)
    user = step.user or "0:0"
    if user != (state.user or "0:0"):
        lines.append(f"USER {quote(user)}")
    workdir = step.workdir or "/"
    if workdir != (state.workdir or "/"):
        lines.append(f"WORKDIR {quote(workdir)}")
    return lines, State(env, "" if user == "0:0" else user, "" if workdir == "/" else workdir)


def configuration(container: Container, state: State) -> list[str]:
    """Instructions that give an image its configuration. What they cannot take away, `shipping.py` does."""
    lines: list[str] = []
    known = dict(state.env)
    for name, value in container.env:
        if known.get(name) != value and execs.in_dockerfile(name, value):
            lines.append(f"ENV {name}={quote(value)}")
    if container.user != state.user:
        lines.append(f"USER {quote(container.user or '0:0')}")
    if container.workdir != state.workdir and container.workdir:
        lines.append(f"WORKDIR {quote(container.workdir)}")
    lines += [f"EXPOSE {p.port}/{p.protocol.lower()}" for p in container.ports if 0 < p.port < 65536]
    if container.healthcheck is not None:
        check = container.healthcheck
        times = [
            f"--{flag}={value} "
            for flag, value in (
                ("interval", check.interval),
                ("timeout", check.timeout),
                ("start-period", check.start_period),
            )
            if value != "0s"
        ]
        retries = f"--retries={check.retries} " if check.retries else ""
        command = check.args[0] if check.shell and len(check.args) == 1 else words(check.args)
        lines.append(f"HEALTHCHECK {''.join(times)}{retries}CMD {command}")
    lines += [f"LABEL {quote(n)}={quote(v)}" for n, v in container.labels if n and not re.search(r"[\r\n]", v)]
    lines.append(f"ENTRYPOINT {words(container.entrypoint)}")
    lines.append(f"CMD {words(container.default_args)}")
    return lines


def _special(entry: Entry) -> bool:
    """Whether a file has what a build context cannot carry: an owner, or a time that counts."""
    return (entry.uid, entry.gid) != (0, 0) or entry.stamped


def _folder(path: str) -> str:
    return f"/{path.strip('/')}/" if path.strip("/") else "/"


def _flags(owner: str, mode: int | None = None) -> str:
    chown = f"--chown={owner} " if owner else ""
    chmod = f"--chmod={mode & 0o7777:04o} " if mode is not None else ""
    return chown + chmod


def _edit(*arguments: str) -> str:
    return words(["/.al/bin/busybox", "sh", "/.al/bin/edit.sh", *arguments])


def _removal(path: str) -> str:
    where = clean(path)
    if not where:
        raise FieldError("unlinkat /: device or resource busy", lazy=True)
    if not GLOB.search(where):
        return f"/{where}"
    return "~" + name_pattern(where).pattern.replace("\\-", "-")


def _plain_remove(removed: tuple[str, ...]) -> str:
    return "rm -rf -- " + " ".join(f"/{clean(p)}" if GLOB.search(p) else shlex.quote(f"/{clean(p)}") for p in removed)


def _short(text: str) -> str:
    import hashlib

    return hashlib.sha256(text.encode()).hexdigest()[:12]
