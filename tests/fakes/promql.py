"""The metric names in a PromQL expression, for tests that hold rules and dashboards to known names."""

from __future__ import annotations

import re

_OPERATORS = {"and", "or", "unless", "by", "without", "on", "ignoring", "group_left", "group_right", "offset", "bool"}
_AGGREGATES = {"sum", "min", "max", "avg", "count", "group", "stddev", "stdvar", "topk", "bottomk", "quantile"}
_WORDS = _OPERATORS | _AGGREGATES | {"inf", "nan", "start", "end"}


def metric_names(expression: str) -> set[str]:
    """Names of the series that `expression` reads. Functions, labels, ranges and keywords are left out."""
    text = re.sub(r"#.*", "", expression)
    text = re.sub(r'"(?:\\.|[^"\\])*"|\'(?:\\.|[^\'\\])*\'', "", text)
    text = re.sub(r"\{[^}]*\}", " ", text)
    text = re.sub(r"\[[^\]]*\]", " ", text)
    text = re.sub(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)", " ", text)
    found = re.finditer(r"(?<![\w:.$])([A-Za-z_:][\w:]*)(\s*\()?", text)
    return {m[1] for m in found if not m[2] and m[1].lower() not in _WORDS}
