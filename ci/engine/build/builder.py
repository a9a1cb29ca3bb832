"""Answers what fields need from BuildKit.

What one query needs in a round becomes one Dockerfile and one build, whose last stage collects all answers. Where
that build fails and there were several needs, each is built alone, so that each gets its own error.
"""

from __future__ import annotations

import itertools
import platform as host_platform
import tarfile
import threading
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from ci.engine.errors import BuildFailed, EngineError, ExecError, FieldError
from ci.engine.files import archive
from ci.engine.files.fs import Fs, plain
from ci.engine.files.owners import names_to_ids
from ci.engine.files.tree import Tree, clean
from ci.engine.needs import DockerBuild, Listing, Look, Need, Outcome, Pull, Ship, Solve
from ci.engine.secrets import Secret, scrub
from ci.engine.values import Ran, Step

from . import answers as asked
from . import shipping
from .buildkit import BuildKit, Job
from .docker_build import docker_build
from .dockerfile import Context
from .execs import AGAIN, LOST, Tools, find_tools, read_results, write_tools
from .failures import in_the_way, meaning
from .logins import Logins
from .lowering import NOTHING, Lowering
from .resolving import Resolver
from .steps import Result

if TYPE_CHECKING:
    from ci.engine.session import Session

MACHINES = {"x86_64": "linux/amd64", "amd64": "linux/amd64", "aarch64": "linux/arm64", "arm64": "linux/arm64"}


class Builder:
    """One per session."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.logins = Logins(session.env, lambda: self.fresh("docker"))
        self.buildkit = BuildKit(session.env, session.options.builder, session.options.progress, self.logins)
        self.trees: dict[str, Tree] = {}
        """Static file systems that were worked out, by key."""
        self.platform = MACHINES.get(host_platform.machine(), f"linux/{host_platform.machine()}")
        self.results: dict[str, Result] = {}
        self._looks: dict[Any, Any] = {}
        self._again: dict[str, int] = {}
        self._in_the_way: set[str] = set()
        self.resolver = Resolver(self)
        self._written: set[str] = set()
        self._lock = threading.RLock()
        self._count = itertools.count()

    @property
    def tools(self) -> Tools:
        """busybox and certificates. Raises SetupError."""
        return self.session.part("tools", lambda: find_tools(self.session.env))

    @property
    def folder(self) -> Path:
        """The main build context of all builds of the session, made when it is first needed."""
        return self.session.part("context", self._context)

    def _context(self) -> Path:
        folder = self.session.scratch / "build" / "context"
        folder.mkdir(parents=True)
        write_tools(folder, self.tools)
        return folder

    def fresh(self, name: str) -> Path:
        """A path in the session's scratch folder that nothing has."""
        stem, dot, kind = name.partition(".")
        return self.folder.parent / f"{stem}.{next(self._count)}{dot}{kind}"

    def close(self) -> None:
        """End what runs."""
        self.buildkit.close()

    # Answers

    def answer(self, needs: list[Need]) -> list[Any]:
        """One answer per need; a need that failed has its error as answer."""
        answers: list[Any] = [None] * len(needs)
        open_: list[tuple[int, Need]] = []
        for i, need in enumerate(needs):
            try:
                known = self._known(need)
                if known is not None:
                    answers[i] = known[0]
                elif isinstance(need, Ship):
                    answers[i] = shipping.ship(self, need)
                elif isinstance(need, DockerBuild):
                    answers[i] = docker_build(self, need)
                else:
                    open_.append((i, self._prepared(need)))
            except EngineError as error:
                answers[i] = as_field_error(error)
        for i, answer in self._together(open_):
            answers[i] = answer
        return answers

    def _together(self, needs: list[tuple[int, Need]]) -> list[tuple[int, Any]]:
        if not needs:
            return []
        try:
            found = self._build([n for _, n in needs])
            return [(i, a) for (i, _), a in zip(needs, found, strict=True)]
        except EngineError as error:
            if len(needs) == 1:
                return [(needs[0][0], as_field_error(error))]
        return [pair for need in needs for pair in self._together([need])]

    def _known(self, need: Need) -> tuple[Any] | None:
        match need:
            case Outcome() if need.step.key in self.results:
                return (self.results[need.step.key],)
            case Look() | Listing() | Pull():
                key = asked.key(need)
                return (self._looks[key],) if key in self._looks else None
            case _:
                return None

    def _prepared(self, need: Need) -> Need:
        """The need with everything in it that a Dockerfile cannot say worked out."""
        match need:
            case Outcome():
                return replace(need, step=self.resolver.step(need.step))
            case Solve() | Look() | Listing() | Pull():
                return replace(need, fs=self.resolver.files(need.fs))
            case _:
                return need

    def _build(self, needs: list[Need]) -> list[Any]:
        lowering = self.lowering()
        lowering.want(
            *[
                Ran(n.step) if isinstance(n, Outcome) else n.fs
                for n in needs
                if isinstance(n, Outcome | Solve | Look | Listing | Pull)
            ]
        )
        parts: list[tuple[str, str]] = []
        places: list[tuple[int, str]] = []  # of each need: which part, and its name there
        probes: dict[str, tuple[Fs, list[str], int]] = {}
        for need in needs:
            match need:
                case Outcome():
                    parts.append((lowering.outcome(need.step), "/.al-r/"))
                case Solve():
                    parts.append((lowering.target(need.fs), NOTHING))
                case Pull() if not clean(need.path):
                    parts.append((lowering.target(need.fs), "/"))
                case Look() | Listing() | Pull():
                    _, asks, part = probes.setdefault(need.fs.key, (need.fs, [], len(parts)))
                    if not asks:
                        parts.append(("", "/.al-answers/"))
                    asks.append(asked.ask(len(asks), need))
                    places.append((part, str(len(asks) - 1)))
                    continue
                case _:
                    raise TypeError(type(need).__name__)
            places.append((len(parts) - 1, ""))
        for fs, asks, part in probes.values():
            parts[part] = (lowering.probe(fs, asks), parts[part][1])
        try:
            tree = self.collect(lowering, lowering.collect(parts))
        except BuildFailed as failed:
            if self.clears(failed):
                return self._build(needs)
            raise self.explain(failed, lowering) from None
        return [self._read(n, tree.below(str(at)), name) for n, (at, name) in zip(needs, places, strict=True)]

    def _read(self, need: Need, tree: Tree, name: str) -> Any:
        match need:
            case Solve():
                return None
            case Outcome():
                return self._outcome(need.step, tree)
            case Pull() if not clean(need.path):
                found: Any = tree
            case Pull():
                found = asked.pulled(tree, name)
            case Look():
                found = asked.looked(tree, name)
            case Listing():
                found = asked.listed(tree, name)
            case _:
                raise TypeError(type(need).__name__)
        self._looks[asked.key(need)] = found
        return found

    def _outcome(self, step: Step, tree: Tree) -> Result:
        result = read_results({p: e.blob.read() for p, e in tree.entries.items() if e.kind == "file"})
        if result is None:
            # the step's layer was kept but not its cache mount: the same step under another mount runs again
            self._again[step.key] = self._again.get(step.key, 0) + 1
            if self._again[step.key] > 2:
                raise FieldError(f"The results of {' '.join(step.args)!r} cannot be read back. Run it again.")
            return self._build([Outcome(step)])[0]
        self.results[step.key] = self.scrubbed(step, result)
        return self.results[step.key]

    def scrubbed(self, step: Step, result: Result) -> Result:
        """A result without its step's secrets."""
        hidden = [self.session.secrets.plaintext(s) for s in step.all_secrets()]
        if not hidden:
            return result

        def one(text: str) -> str:
            return scrub(text.encode(), hidden).decode(errors="replace")

        return replace(result, stdout=one(result.stdout), stderr=one(result.stderr), combined=one(result.combined))

    # Errors

    def clears(self, failed: BuildFailed) -> bool:
        """Whether the build failed for what is in a copy's way, which builds of this session now take away."""
        path = in_the_way(failed)
        found = path is not None and path not in self._in_the_way
        if path is not None:
            self._in_the_way.add(path)
        return found

    def explain(self, failed: BuildFailed, lowering: Lowering) -> EngineError:
        """What a failed build means for a pipeline."""
        steps = {s.key[:16]: s for s in lowering.steps.values()}
        step = steps.get(failed.stage or "")
        error = meaning(failed, step)
        if error is not None:
            return error
        assert step is not None
        assert failed.exit_code is not None
        return self.exec_error(step, failed.exit_code)

    def exec_error(self, step: Step, code: int) -> EngineError:
        """The error of a step that failed, with what it left in its cache mount."""
        lowering = self.lowering()
        name = lowering.left(step, uuid4().hex)
        try:
            tree = self.collect(lowering, lowering.collect([(name, "/.al-r/")]))
        except BuildFailed as failed:
            return FieldError(failed.reason, lazy=True)
        found = {p.rpartition("/")[2]: e.blob.read() for p, e in tree.entries.items() if e.kind == "file"}
        result = read_results(found)
        if result is None:
            return ExecError(step.args, code, "", "")
        if result.refused:
            return ExecError(step.args, -1, "", "", result.refused)
        result = self.scrubbed(step, result)
        ended = code if step.no_init else result.code
        return ExecError(step.args, ended, result.stdout, result.stderr)

    # Builds

    def lowering(self) -> Lowering:
        """A Dockerfile to be."""
        return Lowering(self.session, owners=self.owner_ids, again=self._again, in_the_way=frozenset(self._in_the_way))

    def collect(self, lowering: Lowering, target: str) -> Tree:
        """Build a stage and bring its files here."""
        archive_path = self.fresh("answer.tar")
        self.run(lowering, target, f"type=tar,dest={archive_path}")
        spool = self.fresh("answer")
        spool.mkdir()
        with tarfile.open(archive_path) as opened:
            tree = Tree(dict(archive.entries(opened, spool=spool)))
        archive_path.unlink()
        return tree

    def run(self, lowering: Lowering, target: str, output: str, **more: Any) -> dict[str, Any]:
        """Build a stage; buildx's metadata. Raises BuildFailed, SetupError, FieldError."""
        rendered = lowering.rendered(target)
        for path, tree in rendered.files:
            self._write(self.folder / path, tree)
        contexts = {c.name: self.context(c) for c in rendered.contexts}
        secrets, files = self._secrets(lowering)
        options = self.session.options
        words = [f"--cache-to={c}" for c in options.cache_to] + [f"--cache-from={c}" for c in options.cache_from]
        job = Job(
            rendered.text,
            target,
            self.folder,
            contexts=contexts,
            secrets=secrets,
            secret_files=files,
            output=output,
            options=(*words, "--provenance=false"),
        )
        job = replace(job, **more)
        try:
            return self.buildkit.run(job)
        except BuildFailed as failed:
            if LOST not in failed.log:
                raise
            return self.buildkit.run(replace(job, args={**job.args, AGAIN: uuid4().hex}))

    def context(self, context: Context) -> str:
        """Where BuildKit finds a context: its address, or the folder that it is written to."""
        if context.tree is None:
            return context.address
        folder = self.folder.parent / "contexts" / context.name
        self._write(folder, context.tree)
        return str(folder)

    def _write(self, folder: Path, tree: Tree) -> None:
        with self._lock:
            if str(folder) not in self._written:
                tree.write(folder)
                self._written.add(str(folder))

    def _secrets(self, lowering: Lowering) -> tuple[dict[str, bytes], dict[str, Path]]:
        values: dict[str, bytes] = {}
        files: dict[str, Path] = {}
        for handle, secret in lowering.secrets.items():
            if isinstance(secret, Secret):
                values[handle] = self.session.secrets.plaintext(secret)
            elif isinstance(secret, str):
                values[handle] = secret.encode()
            elif self.tools.certificates is not None:
                files[handle] = self.tools.certificates
        return values, files

    def owner_ids(self, fs: Fs, owner: str) -> tuple[int, int]:
        """Ids of `user[:group]` by a file system's passwd file. Raises FieldError."""
        if fs.static:
            tree = plain(fs, self.trees)
            return names_to_ids(owner, tree.text("etc/passwd") or "", tree.text("etc/group") or "")
        answers = self.answer([Pull(fs, "etc/passwd"), Pull(fs, "etc/group")])
        for each in answers:
            if isinstance(each, EngineError):
                raise each
        texts = [a.text("") or "" for a in answers]
        return names_to_ids(owner, *texts)

    # Pulling

    def pull(self, fs: Fs) -> Tree:
        """All of a file system. Raises FieldError."""
        found = self.answer([Pull(fs, "")])[0]
        if isinstance(found, BaseException):
            raise found
        return found


def as_field_error(error: EngineError) -> FieldError:
    """Any error of ours as one that a field can have."""
    return error if isinstance(error, FieldError) else FieldError(str(error), lazy=True)
