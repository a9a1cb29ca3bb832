"""Answers what fields need from BuildKit.

What one query needs in a round becomes one Dockerfile and one build, whose last stage collects all answers. Where
that build fails and there were several needs, each is built alone, so that each gets its own error.
"""

from __future__ import annotations

import io
import itertools
import platform as host_platform
import re
import tarfile
import threading
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from ci.engine.files import archive
from . import shipping
from .buildkit import BuildKit, Job
from .dockerfile import Context
from ci.engine.errors import BuildFailed, EngineError, ExecError, FieldError
from .execs import Tools, find_tools, read_results, write_tools
from ci.engine.files.fs import Fs, Held, names_to_ids, plain
from .lowering import NOTHING, Lowering
from ci.engine.needs import DockerBuild, Listing, Look, Need, Outcome, Pull, Ship, Solve
from ci.engine.secrets import Secret, scrub
from .steps import Result
from ci.engine.files.tree import Blob, Entry, Tree, clean
from ci.engine.values import After, CacheMount, Ran, Step, TreeMount

if TYPE_CHECKING:
    from ci.engine.session import Session

MACHINES = {"x86_64": "linux/amd64", "amd64": "linux/amd64", "aarch64": "linux/arm64", "arm64": "linux/arm64"}
KINDS = {0o100000: "file", 0o040000: "dir", 0o120000: "link"}
MISSING = re.compile(r'"(/[^"]*)": not found')
IN_THE_WAY = re.compile(r"mkdir /\S*/buildkit\d+(/[^:]*): not a directory")
REFUSED = re.compile(r"al-refused: (.*)")
NO_USER = re.compile(r"unable to find (?:user|group) [^:]*: no matching entries in (?:passwd|group) file")
NO_OWNER = re.compile(
    r"(?:unable to find user|invalid user index|can't find uid for user|no such user)[: ]+\"?([\w.-]+)"
)
NOWHERE = Tree({"": Entry("other")})


class Builder:
    """One per session."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.trees: dict[str, Tree] = {}
        """Static file systems that were worked out, by key."""
        self.platform = MACHINES.get(host_platform.machine(), f"linux/{host_platform.machine()}")
        self.results: dict[str, Result] = {}
        self._looks: dict[Any, Any] = {}
        self._again: dict[str, int] = {}
        self._resolved: dict[str, Fs] = {}
        self._written: set[str] = set()
        self._lock = threading.RLock()
        self._count = itertools.count()

    @cached_property
    def buildkit(self) -> BuildKit:
        """The program that builds."""
        options = self.session.options
        return BuildKit(self.session.env, options.builder, options.progress)

    @cached_property
    def tools(self) -> Tools:
        """busybox and certificates. Raises SetupError."""
        return find_tools(self.session.env)

    @cached_property
    def folder(self) -> Path:
        """The main build context of all builds of the session."""
        folder = self.session.scratch / "build" / "context"
        folder.mkdir(parents=True)
        write_tools(folder, self.tools)
        return folder

    def close(self) -> None:
        """End what runs."""
        if "buildkit" in self.__dict__:
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
                    answers[i] = shipping.docker_build(self, need)
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
                key = _key(need)
                return (self._looks[key],) if key in self._looks else None
            case _:
                return None

    def _prepared(self, need: Need) -> Need:
        """The need with everything in it that a Dockerfile cannot say worked out."""
        match need:
            case Outcome():
                return replace(need, step=self.resolve_step(need.step))
            case Solve() | Look() | Listing() | Pull():
                return replace(need, fs=self.resolve(need.fs))
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
                    asks.append(_ask(len(asks), need))
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
            raise self.explain(failed, lowering, needs) from None
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
                found = _pulled(tree, name)
            case Look():
                found = _looked(tree, name)
            case Listing():
                found = _listed(tree, name)
            case _:
                raise TypeError(type(need).__name__)
        self._looks[_key(need)] = found
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
        hidden = [self.session.secrets.plaintext(s) for s in _secrets(step)]
        if not hidden:
            return result

        def one(text: str) -> str:
            return scrub(text.encode(), hidden).decode(errors="replace")

        return replace(result, stdout=one(result.stdout), stderr=one(result.stderr), combined=one(result.combined))

    # Errors

    def explain(self, failed: BuildFailed, lowering: Lowering, needs: Sequence[Need]) -> EngineError:
        """What a failed build means for a pipeline."""
        steps = {s.key[:16]: s for s in lowering.steps.values()}
        step = steps.get(failed.stage or "")
        if step is not None:
            no_user = NO_USER.search(failed.reason)
            if no_user:
                return ExecError(step.args, -1, "", "", f"get user: {no_user[0]}")
            if failed.exit_code is not None:
                return self.exec_error(step, failed.exit_code)
        refused = REFUSED.search(failed.log)
        if refused:
            return FieldError(refused[1], lazy=True)
        in_the_way = IN_THE_WAY.search(failed.reason)
        if in_the_way:
            return FieldError(f'cannot copy directory to non-directory "{in_the_way[1]}"', lazy=True)
        missing = MISSING.search(failed.reason)
        if missing:
            return FieldError(
                f"stat {_shown(missing[1].rstrip('/') or '/', needs)}: no such file or directory", lazy=True
            )
        owner = NO_OWNER.search(failed.reason)
        if owner:
            return FieldError(
                f"failed to resolve ownership for {owner[1]}: find uid: no such user: {owner[1]}", lazy=True
            )
        return FieldError(failed.reason, lazy=True)

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
        return Lowering(self.session, owners=self.owner_ids, again=self._again)

    def collect(self, lowering: Lowering, target: str) -> Tree:
        """Build a stage and bring its files here."""
        number = next(self._count)
        archive_path = self.folder.parent / f"answer.{number}.tar"
        self.run(lowering, target, f"type=tar,dest={archive_path}")
        spool = self.folder.parent / f"answer.{number}"
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
        return self.buildkit.run(replace(job, **more))

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

    # What a Dockerfile cannot say

    def resolve(self, fs: Fs) -> Fs:
        """The same file system with operations that only we can do, done on pulled trees."""
        if fs.static:
            return fs
        known = self._resolved.get(fs.key)
        if known is not None:
            return known
        if isinstance(fs, archive.Tarball):
            path = self.folder.parent / f"image.{next(self._count)}.tar"
            shipping.ship(self, replace(fs.ship, target=str(path)))
            entry = Entry("file", 0o600, blob=Blob(path.stat().st_size, path=path))
            made: Fs = Held(Tree({"container.tar": entry}), "image")
        elif isinstance(fs, Ran):
            made = Ran(self.resolve_step(fs.step))
        elif isinstance(fs, After):
            made = After(self.resolve_step(fs.step), fs.index)
        else:
            made = self._resolve_operation(fs)
        self._resolved[fs.key] = made
        return made

    def _resolve_operation(self, fs: Fs) -> Fs:
        changes: dict[str, Fs] = {}
        for item in fields(fs) if is_dataclass(fs) else ():
            value = getattr(fs, item.name)
            if isinstance(value, Fs):
                resolved = self.resolve(value)
                if resolved is not value:
                    changes[item.name] = resolved
        made = replace(fs, **changes) if changes else fs  # type: ignore[type-var]
        if made.lowered or made.static:
            return made
        trees = [plain(s, self.trees) if s.static else self.pull(s) for s in made.sources]
        return Held(made.apply(*trees))

    def resolve_step(self, step: Step) -> Step:
        """A step on resolved file systems. Its own name, and so its results, stay those of the step asked for."""
        base = self.resolve(step.base)
        mounts = tuple(self._resolve_mount(m) for m in step.mounts)
        if base is step.base and all(a is b for a, b in zip(mounts, step.mounts, strict=True)):
            return step
        made = replace(step, base=base, mounts=mounts)
        made.__dict__["key"] = step.key
        return made

    def _resolve_mount(self, mount: Any) -> Any:
        if isinstance(mount, TreeMount):
            fs = self.resolve(mount.fs)
            return mount if fs is mount.fs else replace(mount, fs=fs)
        if isinstance(mount, CacheMount) and mount.source is not None:
            fs = self.resolve(mount.source.fs)
            return mount if fs is mount.source.fs else replace(mount, source=replace(mount.source, fs=fs))
        return mount

    def pull(self, fs: Fs) -> Tree:
        """All of a file system. Raises FieldError."""
        found = self.answer([Pull(fs, "")])[0]
        if isinstance(found, BaseException):
            raise found
        return found


def as_field_error(error: EngineError) -> FieldError:
    """Any error of ours as one that a field can have."""
    return error if isinstance(error, FieldError) else FieldError(str(error), lazy=True)


def _secrets(step: Step) -> list[Secret]:
    from ci.engine.values import SecretMount

    return [s for _, s in step.secrets] + [m.secret for m in step.mounts if isinstance(m, SecretMount)]


def _key(need: Need) -> Any:
    match need:
        case Look():
            return "look", need.fs.key, need.path, need.follow
        case Listing():
            return "list", need.fs.key, need.path, need.depth
        case Pull():
            return "pull", need.fs.key, need.path
        case _:
            return None


def _ask(number: int, need: Look | Listing | Pull) -> str:
    path = "/" + clean(need.path)
    match need:
        case Look():
            return f"{number} {'look' if need.follow else 'lstat'} {path}"
        case Listing():
            return f"{number} list {need.depth or 0} {path}"
        case Pull():
            return f"{number} pull {path}"


def _shown(path: str, needs: Sequence[Need]) -> str:
    return path


def _stat_line(line: str) -> tuple[Entry, str]:
    raw, size, uid, gid, mtime, name = line.split("|", 5)
    mode = int(raw, 16)
    entry = Entry(KINDS.get(mode & 0o170000, "other"), mode & 0o7777, int(uid), int(gid), float(mtime), Blob(int(size)))
    return entry, name


def _looked(tree: Tree, name: str) -> tuple[str, Entry] | None:
    text = tree.text(name)
    if not text:
        return None
    first, _, target = text.partition("\n")
    entry, path = _stat_line(first)
    if entry.kind == "link":
        entry = replace(entry, target=target.rstrip("\n"))
    return clean(path), entry


def _listed(tree: Tree, name: str) -> Tree:
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


def _pulled(tree: Tree, name: str) -> Tree:
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


def metadata_digest(metadata: Mapping[str, Any]) -> str:
    """The image's digest in what buildx wrote."""
    return str(metadata.get("containerimage.digest", ""))
