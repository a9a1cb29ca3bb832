"""Builds of one session: a Dockerfile in the making becomes files here, or an error that a pipeline understands."""

from __future__ import annotations

import itertools
import tarfile
import threading
from abc import ABC, abstractmethod
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from ci.engine.errors import BuildFailed, EngineError, ExecError, FieldError
from ci.engine.files import archive
from ci.engine.files.fs import Fs
from ci.engine.files.tree import Tree
from ci.engine.secrets import Secret, scrub
from ci.engine.values import Step

from .buildkit import BuildKit, Job
from .dockerfile import Context
from .execs import AGAIN, LOST, Tools, find_tools, read_results, write_tools
from .failures import in_the_way, meaning
from .logins import Logins
from .lowering import Lowering
from .steps import Result

if TYPE_CHECKING:
    from ci.engine.session import Session


class Builds(ABC):
    """Runs builds and reads what they bring."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.logins = Logins(session.env, lambda: self.fresh("docker"))
        self.buildkit = BuildKit(session.env, session.options.builder, session.options.progress, self.logins)
        self._again: dict[str, int] = {}
        """How often a step's results could not be read back, by the step's key."""
        self._in_the_way: set[str] = set()
        self._written: set[str] = set()
        self._lock = threading.RLock()
        self._count = itertools.count()

    @abstractmethod
    def owner_ids(self, fs: Fs, owner: str) -> tuple[int, int]:
        """Ids of `user[:group]` by a file system's passwd file. Raises FieldError."""

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

    def scrubbed(self, step: Step, result: Result) -> Result:
        """A result without its step's secrets."""
        hidden = [self.session.secrets.plaintext(s) for s in step.all_secrets()]
        if not hidden:
            return result

        def one(text: str) -> str:
            return scrub(text.encode(), hidden).decode(errors="replace")

        return replace(result, stdout=one(result.stdout), stderr=one(result.stderr), combined=one(result.combined))
