"""The row formats people have, each turned into one `Example`: turns of a chat, or plain text.

    messages           {"messages": [{"role": "user", "content": "..."}, ...]}
    prompt-completion  {"prompt": "...", "completion": "..."}
    alpaca             {"instruction": "...", "input": "...", "output": "..."}
    sharegpt           {"conversations": [{"from": "human", "value": "..."}, ...]}
    text               {"text": "..."}

To add one: a function from a row's object to an Example's content, and a line in FORMATS.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from .reader import Problems, Row


@dataclass(frozen=True)
class Message:
    """One turn: `role` is system, user, assistant or tool."""

    role: str
    content: str


@dataclass(frozen=True)
class Example:
    """What a row says: either `messages` or `text`."""

    line: int
    messages: tuple[Message, ...] = ()
    text: str = ""

    def fingerprint(self) -> bytes:
        """32 bytes that are equal for equal content, wherever the row stands and however it was written."""
        content = self.text or [[m.role, m.content] for m in self.messages]
        return hashlib.sha256(json.dumps(content, ensure_ascii=False).encode(errors="surrogatepass")).digest()


class BadRow(Exception):
    """Why a row does not fit its format, and what to do."""


ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "model": "assistant",
    "bot": "assistant",
    "tool": "tool",
    "function": "tool",
}


def detect(rows: Sequence[Row]) -> str | None:
    """The format most rows are in, by their keys; None where no row is in a known one."""
    votes = Counter(name for row in rows if (name := _format_of(row.value)) is not None)
    return votes.most_common(1)[0][0] if votes else None


def parse(rows: Sequence[Row], name: str, problems: Problems) -> list[Example]:
    """Turn rows of the format `name` into Examples; rows that do not fit go to `problems`."""
    examples: list[Example] = []
    for row in rows:
        try:
            content = FORMATS[name].parse(row.value)
            if isinstance(content, str):
                examples.append(Example(row.line, text=content))
            else:
                _check_turns(content)
                examples.append(Example(row.line, tuple(content)))
        except BadRow as error:
            problems.add(row.line, str(error))
    return examples


def _format_of(value: dict[str, Any]) -> str | None:
    return next((n for n, f in FORMATS.items() if all(key in value for key in f.keys)), None)


def _text(value: dict[str, Any], key: str, *, required: bool = True) -> str:
    content = value.get(key)
    if content is None and not required:
        return ""
    if content is None:
        raise BadRow(f"No '{key}', the row has {', '.join(map(repr, value)) or 'no keys'}. Add it.")
    if not isinstance(content, str):
        raise BadRow(f"'{key}' is {type(content).__name__}, not text. Write a string.")
    if required and not content.strip():
        raise BadRow(f"'{key}' is empty. Fill it in or delete the row.")
    return content


def _turns(value: dict[str, Any], key: str, role_key: str, content_key: str) -> list[Message]:
    turns = value.get(key)
    if not isinstance(turns, list) or not turns:
        raise BadRow(f"'{key}' is {'empty' if turns == [] else 'no list'}. Write a list of turns.")
    return [_turn(turn, i, role_key, content_key) for i, turn in enumerate(turns, 1)]


def _turn(turn: Any, number: int, role_key: str, content_key: str) -> Message:
    if not isinstance(turn, dict):
        raise BadRow(f"Turn {number} is no object. Write {{'{role_key}': ..., '{content_key}': ...}}.")
    said = turn.get(role_key)
    role = ROLES.get(said) if isinstance(said, str) else None
    if role is None:
        raise BadRow(f"Turn {number} has the role {said!r}. Use system, user or assistant in '{role_key}'.")
    content = turn.get(content_key)
    if isinstance(content, list):  # the list of parts that chat APIs write
        parts = [p.get("text") if isinstance(p, dict) and p.get("type") == "text" else None for p in content]
        if any(not isinstance(p, str) for p in parts):
            raise BadRow(f"Turn {number} holds something other than text. Only text can be trained on.")
        content = "".join(str(p) for p in parts)
    if not isinstance(content, str) or not content.strip():
        raise BadRow(f"Turn {number} ({role}) has no '{content_key}'. Fill it in or delete the row.")
    return Message(role, content)


def _check_turns(messages: Sequence[Message]) -> None:
    if any(m.role == "system" for m in messages[1:]):
        raise BadRow("A system turn stands inside the chat. Move it to the first place.")
    spoken = [m for m in messages if m.role in ("user", "assistant")]
    for before, after in pairwise(spoken):
        if before.role == after.role and not any(m.role == "tool" for m in messages):
            raise BadRow(f"Two turns of the {after.role} in a row. Join them or add what is missing between.")
    if not any(m.role == "assistant" for m in messages):
        raise BadRow("No assistant turn: nothing to learn. Add the answer or delete the row.")
    if spoken[0].role == "assistant":
        raise BadRow("The chat begins with the assistant. Begin with a user turn.")


def _messages(value: dict[str, Any]) -> list[Message]:
    return _turns(value, "messages", "role", "content")


def _sharegpt(value: dict[str, Any]) -> list[Message]:
    system = _text(value, "system", required=False)
    turns = _turns(value, "conversations", "from", "value")
    return [Message("system", system), *turns] if system.strip() else turns


def _prompt_completion(value: dict[str, Any]) -> list[Message]:
    if isinstance(value.get("prompt"), list):
        return [*_turns(value, "prompt", "role", "content"), *_turns(value, "completion", "role", "content")]
    return [Message("user", _text(value, "prompt")), Message("assistant", _text(value, "completion"))]


def _alpaca(value: dict[str, Any]) -> list[Message]:
    asked, given = _text(value, "instruction"), _text(value, "input", required=False)
    prompt = f"{asked}\n\n{given}" if given.strip() else asked
    turns = [Message("user", prompt), Message("assistant", _text(value, "output"))]
    system = _text(value, "system", required=False)
    return [Message("system", system), *turns] if system.strip() else turns


def _plain(value: dict[str, Any]) -> str:
    return _text(value, "text")


@dataclass(frozen=True)
class Format:
    """The keys that tell a format, and how a row of it is read."""

    keys: tuple[str, ...]
    parse: Callable[[dict[str, Any]], list[Message] | str]


FORMATS: dict[str, Format] = {
    "messages": Format(("messages",), _messages),
    "sharegpt": Format(("conversations",), _sharegpt),
    "alpaca": Format(("instruction", "output"), _alpaca),
    "prompt-completion": Format(("prompt", "completion"), _prompt_completion),
    "text": Format(("text",), _plain),
}
