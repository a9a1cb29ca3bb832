"""A JSON Lines file as rows that remember their line, with up to 20 errors collected instead of the first one."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.errors import DataError

LIMIT = 20
"""Problems shown at once; more would only scroll the first away."""


@dataclass(frozen=True)
class Row:
    """One object of the file and the line (from 1) where it stands."""

    line: int
    value: dict[str, Any]


class Problems:
    """Collects `line N: ...` messages; `raise_if_any` raises the first 20 and how many more there were."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.messages: list[str] = []
        self.count = 0

    def add(self, line: int, message: str) -> None:
        """Note one problem of one line."""
        self.count += 1
        if len(self.messages) < LIMIT:
            self.messages.append(f"{self.path.name} line {line}: {message}")

    def raise_if_any(self) -> None:
        """Raise DataError when something was noted."""
        if self.count:
            more = self.count - len(self.messages)
            raise DataError([*self.messages, *([f"... and {more} more problems like these."] if more else [])])


def read_rows(path: Path, problems: Problems) -> list[Row]:
    """Read all rows; lines that are no JSON object go to `problems`. Empty lines are allowed.

    Raises DataError where the file cannot be read at all or holds no row.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(
            [f"Unreadable data, {path}: {error.strerror}. Give an existing JSONL file to --data."]
        ) from None
    rows: list[Row] = []
    for number, raw in enumerate(content.split(b"\n"), 1):
        if not raw.strip():
            continue
        try:
            text = raw.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            problems.add(number, f"Not UTF-8, byte {error.start}. Save the file as UTF-8.")
            continue
        try:
            value = json.loads(text)
        except ValueError as error:
            problems.add(number, _not_json(text, error, whole_file=number == 1))
            continue
        except RecursionError:
            problems.add(number, "Nested too deeply. Flatten the row.")
            continue
        if _half_a_character(text, value):
            problems.add(
                number, "Half a character: an escape \\ud800 to \\udfff stands alone. Write the whole character."
            )
        elif isinstance(value, dict):
            rows.append(Row(number, value))
        else:
            problems.add(number, f"Not an object but {_kind(value)}. Write one {{...}} a line.")
    if not rows and not problems.count:
        raise DataError([f"No rows, {path}: the file is empty. Write one JSON object a line."])
    return rows


def file_hash(path: Path) -> str:
    """sha256 of the file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _not_json(text: str, error: ValueError, *, whole_file: bool) -> str:
    if whole_file and text.strip() in ("[", "{"):
        return "Not JSON Lines but one JSON document. Write one object a line (jq -c '.[]' FILE)."
    if isinstance(error, json.JSONDecodeError):
        near = text[max(0, error.pos - 12) : error.pos + 12].strip()
        return f"Not JSON, column {error.colno}: {error.msg}, near {near!r}. Correct that place."
    return f"Not JSON: {error}. Correct that line."


def _half_a_character(text: str, value: object) -> bool:
    """Whether a string in it is no text: half of a pair of escapes, which no tokenizer takes."""
    if "\\u" not in text:
        return False
    try:
        json.dumps(value, ensure_ascii=False).encode()
        return False
    except UnicodeEncodeError:
        return True


def _kind(value: object) -> str:
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, int | float):
        return "a number"
    return {list: "a list", str: "a string"}.get(type(value), "null")  # type: ignore[call-overload]
