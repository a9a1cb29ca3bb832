"""The stages of a Dockerfile in the making: one for each file system that is used more than once.

A chain used once continues in its base's stage, as a person would write it.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING

from ci.engine.errors import Unsupported
from ci.engine.files.fs import Fs
from ci.engine.files.tree import Tree
from ci.engine.values import Step

from .configuration import State
from .dockerfile import Context, Rendered, Stage

if TYPE_CHECKING:
    from ci.engine.secrets import Secret
    from ci.engine.session import Session


class Stages(ABC):
    """Stages, contexts, files and secrets of one Dockerfile."""

    def __init__(
        self,
        session: Session,
        *,
        plain: bool = False,
        owners: Callable[[Fs, str], tuple[int, int]] | None = None,
        again: dict[str, int] | None = None,
        in_the_way: frozenset[str] = frozenset(),
    ) -> None:
        self.session = session
        self.plain = plain
        self.owners = owners
        """Ids of `user[:group]` by a file system's own passwd file, for mounts that take only numbers."""
        self.again = again or {}
        self.in_the_way = in_the_way
        """Paths where a COPY has failed for what is there: it is taken away before."""
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

    def _continue(self, base: Fs) -> Stage:
        """A stage to add instructions to: the base's own if nothing else uses that."""
        if base.static:
            stage = self._lower(base)
            self._states.setdefault(base.key, State())
            return stage
        stage = self._refs[base.key]
        if self._uses.get(base.key, 2) > 1:
            return self._new(stage.name)
        self._last(stage)
        return stage

    def _last(self, stage: Stage) -> None:
        """Put a stage that nothing refers to yet behind those that it is about to use."""
        self.stages.remove(stage)
        self.stages.append(stage)

    @abstractmethod
    def _lower(self, fs: Fs) -> Stage:
        """The stage of one operation; those that it rests on are there."""

    # Owners

    def _owner(self, base: Fs, owner: str) -> str:
        """`user[:group]` for COPY, which takes names that nobody has without a word: they become numbers here."""
        if not owner or (self.owners is None and not re.fullmatch(r"\d+(:\d+)?", owner)):
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
