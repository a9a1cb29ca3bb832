"""Judges answers. Pure: a case and what came back go in, verdicts and a report come out."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from service.backends.base import ToolCall, ToolSpec
from service.evals.cases import Case, WantedCall
from service.tools import arguments
from service.tools.base import ToolError


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model gave: text, calls, tokens, seconds; `error` if it gave nothing."""

    text: str = ""
    calls: tuple[ToolCall, ...] = ()
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0
    first_token: float | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """One answer's judgement: `failures` in words, empty if it is good."""

    case: str
    passed: bool
    failures: tuple[str, ...]
    calls: int
    valid_calls: int
    seconds: float
    first_token: float | None
    tokens: int
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """All verdicts, put together. Rates are shares from 0 to 1, None where there was nothing to judge.

    `trigger_f1`: whether tools are called when they should be and only then. `schema_accuracy`: the share of calls
    whose name and arguments were valid.
    """

    cases: int
    attempts: int
    passed: int
    pass_rate: float
    pass_low: float
    trigger_f1: float | None
    schema_accuracy: float | None
    errors: int
    p50_seconds: float
    p95_seconds: float
    p50_first_token: float | None
    tokens_per_second: float | None
    verdicts: tuple[Verdict, ...] = field(repr=False)

    def as_json(self) -> dict[str, Any]:
        """The report with its verdicts, for a file."""
        return asdict(self)


def judge(case: Case, answer: Answer) -> Verdict:
    """Whether `answer` is what `case` wants."""
    failures: list[str] = []
    valid = sum(_valid(call, case.tools) is None for call in answer.calls)
    if answer.error:
        failures.append(answer.error)
    else:
        failures += _text_failures(case, answer.text)
        failures += [problem for call in answer.calls if (problem := _valid(call, case.tools))]
        if case.calls is not None:
            failures += _call_failures(case.calls, answer.calls)
    return Verdict(
        case.id,
        not failures,
        tuple(failures),
        len(answer.calls),
        valid,
        answer.seconds,
        answer.first_token,
        answer.completion_tokens,
        answer.error,
    )


def report(cases: Sequence[Case], verdicts: Sequence[Verdict]) -> Report:
    """The figures of a run over all cases (each perhaps several times)."""
    wanted = {case.id: None if case.calls is None else bool(case.calls) for case in cases}
    judged = [(wanted[v.case], v.calls > 0) for v in verdicts if wanted[v.case] is not None and not v.error]
    hits = sum(1 for want, did in judged if want and did)
    wrong = sum(1 for want, did in judged if want != did)
    calls = sum(v.calls for v in verdicts)
    seconds = sorted(v.seconds for v in verdicts if not v.error)
    firsts = sorted(v.first_token for v in verdicts if v.first_token is not None)
    spent = sum(v.seconds - (v.first_token or 0.0) for v in verdicts if not v.error)
    passed = sum(v.passed for v in verdicts)
    return Report(
        cases=len(cases),
        attempts=len(verdicts),
        passed=passed,
        pass_rate=passed / len(verdicts),
        pass_low=wilson_low(passed, len(verdicts)),
        trigger_f1=2 * hits / (2 * hits + wrong) if hits + wrong else (1.0 if judged else None),
        schema_accuracy=sum(v.valid_calls for v in verdicts) / calls if calls else None,
        errors=sum(v.error is not None for v in verdicts),
        p50_seconds=quantile(seconds, 0.5),
        p95_seconds=quantile(seconds, 0.95),
        p50_first_token=quantile(firsts, 0.5) if firsts else None,
        tokens_per_second=sum(v.tokens for v in verdicts if not v.error) / spent if spent > 0 else None,
        verdicts=tuple(verdicts),
    )


def quantile(ordered: Sequence[float], share: float) -> float:
    """The value below which `share` of an ordered sequence lies (nearest rank); 0 for none."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else 0.0


def wilson_low(passed: int, attempts: int, z: float = 1.96) -> float:
    """The lower end of Wilson's 95 % interval for a share: what a few attempts really prove."""
    if not attempts:
        return 0.0
    share = passed / attempts
    centre = share + z * z / (2 * attempts)
    spread = z * math.sqrt(share * (1 - share) / attempts + z * z / (4 * attempts * attempts))
    return max(0.0, (centre - spread) / (1 + z * z / attempts))


def _text_failures(case: Case, text: str) -> list[str]:
    failures = [f"does not contain {each!r}" for each in case.contains if each.lower() not in text.lower()]
    if case.matches is not None and not re.search(case.matches, text):
        failures.append(f"does not match {case.matches!r}")
    if case.equals is not None and text.strip() != case.equals.strip():
        failures.append(f"is not {case.equals!r}")
    if case.schema is not None:
        try:
            problem = arguments.check(json.loads(text), case.schema)
        except ValueError:
            problem = "it is no JSON"
        if problem:
            failures.append(f"is not of the schema: {problem}")
    return failures


def _call_failures(wanted: Sequence[WantedCall], made: Sequence[ToolCall]) -> list[str]:
    if not wanted:
        return [f"called {call.name}, although no tool was to be called" for call in made]
    left = list(made)
    failures: list[str] = []
    for want in wanted:
        found = next((call for call in left if call.name == want.name and _has(call, want)), None)
        if found is None:
            failures.append(f"did not call {want.name} with {json.dumps(dict(want.arguments), ensure_ascii=False)}")
        else:
            left.remove(found)
    return failures


def _has(call: ToolCall, want: WantedCall) -> bool:
    try:
        given = json.loads(call.arguments or "{}")
    except ValueError:
        return False
    return isinstance(given, dict) and all(
        name in given and given[name] == value for name, value in want.arguments.items()
    )


def _valid(call: ToolCall, tools: Sequence[ToolSpec]) -> str | None:
    tool = next((each for each in tools if each.name == call.name), None)
    if tool is None:
        return f"called a tool that was not offered: {call.name!r}"
    try:
        arguments.parse(call.arguments, tool.parameters)
    except ToolError as error:
        return f"{call.name}: {error}"
    return None
