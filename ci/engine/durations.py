"""Durations in Go's words (`1m30s`), which is how health checks have them."""

from __future__ import annotations

import re

from .errors import FieldError

UNITS = {"ns": 1, "us": 1000, "µs": 1000, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}


def nanoseconds(text: str) -> int:
    """A duration in Go's words (`1m30s`). Raises FieldError."""
    parts = re.findall(r"([0-9]*\.?[0-9]+)(ns|us|µs|ms|s|m|h)", text)
    if text == "0":
        return 0
    if not parts or "".join(n + u for n, u in parts) != text.lstrip("+-"):
        raise FieldError(f'time: invalid duration "{text}"')
    total = sum(int(float(n) * UNITS[u]) for n, u in parts)
    return -total if text.startswith("-") else total


def go_duration(value: int) -> str:
    """A duration as Go prints it."""
    if value == 0:
        return "0s"
    sign, value = ("-", -value) if value < 0 else ("", value)
    for unit, size in (("ns", 1), ("µs", 1000), ("ms", 10**6)):
        if value < size * 1000:
            return f"{sign}{value / size:g}{unit}"
    hours, rest = divmod(value, UNITS["h"])
    minutes, rest = divmod(rest, UNITS["m"])
    out = f"{hours}h" if hours else ""
    out += f"{minutes}m" if hours or minutes else ""
    return f"{sign}{out}{rest / UNITS['s']:g}s"
