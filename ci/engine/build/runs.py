"""Steps: each a RUN under our script with its mounts, or as a person would write it (`plain`)."""

from __future__ import annotations

import posixpath
import re
import shlex

from ci.engine.errors import FieldError, Unsupported
from ci.engine.files.fs import Fs
from ci.engine.files.tree import Blob, Entry, Tree
from ci.engine.values import After, CacheMount, Mount, Ran, SecretMount, Step, TempMount, TreeMount

from . import execs
from .configuration import State, settings
from .dockerfile import Stage, mount, paths, placed, words
from .edits import Edits
from .text import TOOLS, edit, flags, short

OUTBOX = "outbox"
CERTIFICATES = "certificates"
GPU = (
    "GPU steps need a BuildKit with CDI devices (0.20 or later). "
    "Train with 'make train-gemma-2b', or on a Dagger engine with GPUs: 'dagger call train --gpu'."
)


class Runs(Edits):
    """Lowers steps and what they leave."""

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
        stage.lines += [*lines, *placed(mounts)]
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
        options += self._certificates()
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

    def _certificates(self) -> list[str]:
        """The mounts that bring the host's certificates: a cache mount that a stage of its own has filled.

        A secret mount would do, but BuildKit hashes every file under a step that has one (it takes the mount for
        the root's, whose content it then compares): half a second for a small image, half a minute for one with
        torch. The stage leaves a file of constant content, so another bundle makes no step run again.
        """
        bundle = self.session.builder.tools.bundle
        kept = mount(type="cache", id=f"agent-loop-ca-{bundle}", target="/.al/ca")
        if CERTIFICATES not in (s.name for s in self.stages):
            self.secrets["agent-loop-ca"] = None
            given = mount(type="secret", id="agent-loop-ca", target="/.al/ca.pem", mode="0444")
            fill = f"RUN --network=none {TOOLS} {given} {kept} {edit('', 'certificates', bundle)}"
            stage = Stage(CERTIFICATES, OUTBOX, [f"ARG {execs.AGAIN}", fill])
            self.stages.insert([s.name for s in self.stages].index(OUTBOX) + 1, stage)
        ready = mount(type="bind", from_=CERTIFICATES, source="/ready", target="/.al/ready")
        return [ready, kept]

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
        name = word if word == volume.key and word else f"{word}-{short(volume.key)}"
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
        stage.lines.append(f"COPY {origin}{flags(owner)}{paths(path, target)}")
        return stage.name, target.rstrip("/")

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
        told = edit("", "left", str(fs.index), self._id(step))
        left.lines.append(f"RUN --network=none {TOOLS} {self._out(step)} {told}")
        work = self._new(word="edit")
        origin = f"--from={source} " if source else ""
        work.lines += [
            f"COPY {origin}{paths(path, '/r/file' if mounted.lone else '/r/')}",
            f"COPY --from={left.name} {paths('/.al-left/', '/left/')}",
            f"RUN --network=none {TOOLS} {edit('/r', 'mount')}",
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
