"""The feature row of an ended run, for drift detection: numbers and flags, never text."""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter
from typing import Any

from service.runs.spec import RunSpec
from service.runs.state import RunState

# Openings that models use to decline, in the first line of an answer; a signal, not a judgement.
_REFUSAL = re.compile(
    r"(?i)^\W*(i'?m sorry|i am sorry|sorry|i can('?t|not)|i('m| am) (not able|unable)|as an ai|i won'?t)\b"
)


def row(spec: RunSpec, state: RunState, *, outcome: str, variant: str, digest: str, user_retry: bool) -> dict[str, Any]:
    """The columns of `run_features` but for run id, time and thumbs."""
    output = state.output
    speed = state.completion_tokens / state.model_seconds if state.model_seconds > 0 else None
    return {
        "agent": spec.agent,
        "model": spec.model,
        "model_digest": digest,
        "variant": variant,
        "outcome": outcome,
        "finish_reason": state.finish_reason,
        "prompt_tokens": state.prompt_tokens,
        "completion_tokens": state.completion_tokens,
        "turns": state.steps,
        "tool_calls": state.tool_calls,
        "tool_errors": state.tool_errors,
        "tools": sorted(set(state.tools)),
        "script": script(output),
        "refusal": int(bool(_REFUSAL.match(output))),
        "json_valid": json_valid(output),
        "user_retry": int(user_retry),
        "seconds": state.seconds,
        "ttft_seconds": state.ttft,
        "tokens_per_second": speed,
    }


def script(text: str) -> str:
    """The writing system of most letters (`latin`, `cyrillic`, `cjk`, …), "" without letters."""
    names = Counter(
        unicodedata.name(letter, "?").split(" ", 1)[0].lower() for letter in text[:2000] if letter.isalpha()
    )
    return names.most_common(1)[0][0][:16] if names else ""


def json_valid(text: str) -> int | None:
    """1 if the answer is JSON, 0 if it only starts like it, None if it does not."""
    stripped = text.strip()
    if not stripped.startswith(("{", "[")):
        return None
    try:
        json.loads(stripped)
    except ValueError:
        return 0
    return 1


def same_question(spec: RunSpec, earlier: dict[str, Any] | None) -> bool:
    """Whether the person asked again what the session's last run was asked."""
    if earlier is None or not spec.messages:
        return False
    asked = [each.get("content") for each in earlier.get("messages", []) if each.get("role") == "user"]
    return bool(asked) and asked[-1] == spec.messages[-1].content
