"""What a scripted backend plays: rules of turns, read from JSON or written in Python."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from service.backends import base
from service.backends.base import BackendError, FinishReason
from service.errors import StartupError

FAILURES: dict[str, type[BackendError]] = {
    "unavailable": base.BackendUnavailable,
    "overloaded": base.BackendOverloaded,
    "stalled": base.BackendStalled,
    "protocol": base.BackendProtocolError,
    "failed": base.BackendFailed,
    "rejected": base.BackendRejected,
    "context": base.ContextTooLong,
}
"""What a turn's `fail` may name, and what it raises."""


@dataclass(frozen=True, slots=True)
class Call:
    """A tool call that the script makes; string arguments are templates. `raw` replaces them by any text."""

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict[str, Any])
    raw: str | None = None


@dataclass(frozen=True, slots=True)
class Turn:
    """One model call's reply.

    `delay` is the time to the first chunk and `pace` the time between chunks, in seconds; a chunk is a word.
    `fail` names one of `FAILURES`, raised after `fail_after` chunks (0: before the first byte), on the first
    `fail_times` calls of this turn only if that is given.
    """

    text: str = ""
    thinking: str = ""
    calls: tuple[Call, ...] = ()
    finish: FinishReason | None = None
    delay: float = 0.0
    pace: float = 0.0
    fail: str | None = None
    fail_after: int = 0
    fail_times: int | None = None


@dataclass(frozen=True, slots=True)
class Rule:
    """Turns for user messages in which `when` (a regular expression, case ignored) is found."""

    when: str
    turns: tuple[Turn, ...]


@dataclass(frozen=True, slots=True)
class Script:
    """What a scripted backend plays, and the models it claims to have."""

    rules: tuple[Rule, ...] = ()
    models: tuple[str, ...] = ("scripted",)
    native_tools: bool = True
    context: int = 4096

    @classmethod
    def of(cls, *turns: Turn, models: Sequence[str] = ("scripted",), native_tools: bool = True) -> Script:
        """A script that plays these turns after every user message."""
        return cls((Rule("", turns),), tuple(models), native_tools)

    @classmethod
    def read(cls, path: Path) -> Script:
        """A script from a JSON file: `{"models": […], "rules": [{"when": "…", "turns": [{"text": "…"}]}]}`.

        Raises StartupError with the place of what is wrong.
        """
        try:
            data: Any = json.loads(path.read_text(encoding="utf-8"))
            rules = tuple(
                Rule(str(rule["when"]), tuple(_turn(turn) for turn in rule["turns"])) for rule in data["rules"]
            )
            for rule in rules:
                re.compile(rule.when)
            return cls(
                rules,
                tuple(data.get("models", ("scripted",))),
                bool(data.get("native_tools", True)),
                int(data.get("context", 4096)),
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError, re.error) as error:
            detail = f"no field {error}" if isinstance(error, KeyError) else str(error)
            raise StartupError(
                f"Cannot read the script: {path}: {detail}.", "See docs/service.md for its form."
            ) from None


DEMO = Script(
    (
        Rule(
            r"(?P<expression>[-+(]*\d[\d\s.]*(?:[-+*/%^]+[\s(]*\d[\d\s.)]*)+)",
            (
                Turn(
                    calls=(Call("calculator", {"expression": "${expression}"}),),
                    delay=0.3,
                    thinking="This needs arithmetic.",
                ),
                Turn(text="${expression} is ${tool}.", delay=0.2, pace=0.03),
            ),
        ),
        Rule(
            r"\b(time|date|day|o'clock)\b",
            (
                Turn(calls=(Call("clock", {}),), delay=0.3),
                Turn(text="The clock says ${tool}.", delay=0.2, pace=0.03),
            ),
        ),
        Rule(r"\bslow(ly)?\b", (Turn(text="word " * 120, delay=0.5, pace=0.1),)),
        Rule(r"\bfail\b", (Turn(text="I will stop in the middle of", pace=0.05, fail="failed", fail_after=4),)),
    )
)
"""Played without a script file: arithmetic and the time use tools, `slowly` takes its time, `fail` breaks off."""


def _turn(data: Mapping[str, Any]) -> Turn:
    known = {key: value for key, value in data.items() if key in Turn.__dataclass_fields__ and key != "calls"}
    if known.get("fail") not in (None, *FAILURES):
        raise ValueError(f"fail is {known['fail']!r}, not one of {', '.join(FAILURES)}")
    unknown = set(data) - set(Turn.__dataclass_fields__)
    if unknown:
        raise ValueError(f"unknown field {sorted(unknown)[0]!r} in a turn")
    return Turn(**known, calls=tuple(Call(**call) for call in data.get("calls", ())))
