"""Answers what fields need from BuildKit.

What one query needs in a round becomes one Dockerfile and one build, whose last stage collects all answers. Where
that build fails and there were several needs, each is built alone, so that each gets its own error.
"""

from __future__ import annotations

import platform as host_platform
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ci.engine.errors import BuildFailed, EngineError, FieldError
from ci.engine.files.fs import Fs, plain
from ci.engine.files.owners import names_to_ids
from ci.engine.files.tree import Tree, clean
from ci.engine.needs import DockerBuild, Listing, Look, Need, Outcome, Pull, Ship, Solve
from ci.engine.values import Ran, Step

from . import answers as asked
from . import shipping
from .builds import Builds
from .docker_build import docker_build
from .execs import read_results
from .lowering import NOTHING
from .resolving import Resolver
from .steps import Result

if TYPE_CHECKING:
    from ci.engine.session import Session

MACHINES = {"x86_64": "linux/amd64", "amd64": "linux/amd64", "aarch64": "linux/arm64", "arm64": "linux/arm64"}


class Builder(Builds):
    """One per session."""

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self.trees: dict[str, Tree] = {}
        """Static file systems that were worked out, by key."""
        self.platform = MACHINES.get(host_platform.machine(), f"linux/{host_platform.machine()}")
        self.results: dict[str, Result] = {}
        self._looks: dict[Any, Any] = {}
        self.resolver = Resolver(self)

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
