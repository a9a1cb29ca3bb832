"""Which policies hold and which are silenced: `[tool.agent-loop.policy]` in the module's pyproject.toml.

[tool.agent-loop.policy]
rules = ["pinned-base", "numeric-user"]     # default: all
runtime = ["build-runtime", "build-ops"]    # default: functions with "runtime" in their names
training = ["build-training", "train"]      # default: functions with "train" in their names
labels = ["org.opencontainers.image.title"] # default: title, source, revision

[[tool.agent-loop.policy.silence]]
rule = "numeric-user"
function = "build-builder"                  # a pattern; default: every function
reason = "never started: the runtime copies from it"
"""

from __future__ import annotations

import fnmatch
import tomllib
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PREFIX = "org.opencontainers.image"


class BadSettings(Exception):
    """Settings that cannot be used: `Problem, value, place. What to do.`"""


@dataclass(frozen=True)
class Silence:
    """A rule that does not count for some functions, and why."""

    rule: str
    function: str
    reason: str

    def covers(self, rule: str, function: str) -> bool:
        return rule == self.rule and fnmatch.fnmatch(function, self.function)


@dataclass(frozen=True)
class Settings:
    """What the project asks of its images."""

    rules: tuple[str, ...] = ()
    """Names of the rules that hold; empty: all."""
    runtime: tuple[str, ...] = ()
    training: tuple[str, ...] = ()
    labels: tuple[str, ...] = (f"{PREFIX}.title", f"{PREFIX}.source", f"{PREFIX}.revision")
    silences: tuple[Silence, ...] = ()

    def is_runtime(self, function: str) -> bool:
        return any(fnmatch.fnmatch(function, p) for p in self.runtime or ("*runtime*",))

    def is_training(self, function: str) -> bool:
        return any(fnmatch.fnmatch(function, p) for p in self.training or ("*train*",))


def load(folders: Collection[Path], known: Collection[str]) -> Settings:
    """The settings of the first of these folders whose pyproject.toml has them. Raises BadSettings."""
    for folder in folders:
        path = folder / "pyproject.toml"
        try:
            table = tomllib.loads(path.read_text()).get("tool", {}).get("agent-loop", {}).get("policy")
        except FileNotFoundError:
            continue
        except (OSError, tomllib.TOMLDecodeError) as error:
            raise BadSettings(f"Policy settings cannot be read, {error}, {path}. Mend the file.") from None
        if table is not None:
            return read(table, known, path)
    return Settings()


def read(table: dict[str, Any], known: Collection[str], path: Path) -> Settings:
    """Check and take over one table. Raises BadSettings."""
    allowed = {"rules", "runtime", "training", "labels", "silence"}
    for key in table:
        if key not in allowed:
            raise BadSettings(f"Unknown policy setting, {key}, {path}. Settings are {', '.join(sorted(allowed))}.")
    silences = tuple(_silence(entry, known, path) for entry in table.get("silence", ()))
    lists = {key: _words(table, key, path) for key in ("rules", "runtime", "training")}
    for rule in lists["rules"]:
        _known(rule, known, path)
    labels = _words(table, "labels", path) if "labels" in table else Settings().labels
    return Settings(lists["rules"], lists["runtime"], lists["training"], labels, silences)


def _words(table: dict[str, Any], key: str, path: Path) -> tuple[str, ...]:
    value = table.get(key, [])
    if not isinstance(value, list) or not all(isinstance(v, str) for v in value):
        raise BadSettings(f'Policy setting is no list of words, {key} = {value!r}, {path}. Write ["a", "b"].')
    return tuple(value)


def _silence(entry: Any, known: Collection[str], path: Path) -> Silence:
    if not isinstance(entry, dict) or not entry.get("rule"):
        raise BadSettings(f"Silence without a rule, {entry!r}, {path}. Name the rule it silences.")
    rule, reason = str(entry["rule"]), str(entry.get("reason") or "").strip()
    _known(rule, known, path)
    if not reason:
        raise BadSettings(f"Silence without a reason, rule {rule}, {path}. Say why in `reason`.")
    return Silence(rule, str(entry.get("function", "*")), reason)


def _known(rule: str, known: Collection[str], path: Path) -> None:
    if rule not in known:
        raise BadSettings(f"Unknown policy, {rule}, {path}. Policies are {', '.join(sorted(known))}.")
