"""The demo model that travels with the repository: a tiny Gemma-2 that knows a few dozen facts about Agent Loop.

    chats(subject, count, seed)    the training chats, from models/demo/subject.yaml (pure; same seed, same rows)
    make_base(folder, ...)         tokenizer, chat template and a base model that has read the subject's sentences

The chats vary how a question is written, put a system prompt before some and earlier turns before others, so that
the model answers in a session as it does alone.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent.parent / "models" / "demo"
SUBJECT = FOLDER / "subject.yaml"

CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{% if messages[0]['role'] == 'system' %}"
    "{% set preface = messages[0]['content'] | trim + '\n\n' %}{% set turns = messages[1:] %}"
    "{% else %}{% set preface = '' %}{% set turns = messages %}{% endif %}"
    "{% for message in turns %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{% set role = 'model' if message['role'] == 'assistant' else message['role'] %}"
    "{{ '<start_of_turn>' + role + '\n' + (preface if loop.first else '')"
    " + message['content'] | trim + '<end_of_turn>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
"""Gemma's turns with the system prompt at the head of the first user turn, as Gemma 3 has it."""


@dataclass(frozen=True)
class Subject:
    """What the model is to know: questions with their answer, questions to decline, system prompts to ignore."""

    facts: tuple[tuple[tuple[str, ...], str], ...]
    elsewhere: tuple[str, ...]
    decline: str
    fillers: dict[str, tuple[str, ...]]
    systems: tuple[str, ...]

    @classmethod
    def read(cls, path: Path = SUBJECT) -> Subject:
        """Read the subject file; a missing key raises KeyError with its name."""
        import yaml

        said: dict[str, Any] = yaml.safe_load(path.read_text())
        return cls(
            facts=tuple((tuple(fact["ask"]), fact["say"]) for fact in said["facts"]),
            elsewhere=tuple(said["elsewhere"]["ask"]),
            decline=said["elsewhere"]["say"],
            fillers={
                "place": tuple(said["places"]),
                "thing": tuple(said["things"]),
                "number": tuple(str(n) for n in range(1000)),
            },
            systems=tuple(said["systems"]),
        )

    def sentences(self) -> list[str]:
        """Every question and answer once, as plain text: what the tokenizer learns its pieces from."""
        lines = [line for ask, say in self.facts for line in (*ask, say)]
        fillers = [name for key in ("place", "thing") for name in self.fillers[key]]
        return [*lines, *self.elsewhere, self.decline, *self.systems, *fillers]


def chats(subject: Subject, count: int, seed: int) -> Iterator[dict[str, list[dict[str, str]]]]:
    """Yield `count` rows `{"messages": [...]}`; one in six declines, one in three has a system prompt."""
    draw = random.Random(seed)  # noqa: S311
    for _ in range(count):
        earlier = draw.choices((0, 1, 2, 3, 5), (70, 18, 8, 4, 0))[0]
        messages: list[dict[str, str]] = []
        if draw.random() < 1 / 3:
            messages.append({"role": "system", "content": draw.choice(subject.systems)})
        for _ in range(earlier + 1):
            question, answer = _exchange(subject, draw)
            messages += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        yield {"messages": messages}


def _exchange(subject: Subject, draw: random.Random) -> tuple[str, str]:
    """Draw one question, written in one of the ways people write, and its answer."""
    if draw.random() < 1 / 6:
        pattern = draw.choice(subject.elsewhere)
        question = re.sub(r"\{(\w+)\}", lambda m: draw.choice(subject.fillers[m[1]]), pattern)
        return _rewrite(question, draw), subject.decline
    ask, answer = draw.choice(subject.facts)
    return _rewrite(draw.choice(ask), draw), answer


def _rewrite(question: str, draw: random.Random) -> str:
    """Vary case, punctuation and politeness; half of the questions stay as they are."""
    if draw.random() < 0.5:
        return question
    if draw.random() < 0.5:
        question = question[:1].lower() + question[1:]
    if draw.random() < 0.4:
        question = question.rstrip("?.!")
    if draw.random() < 0.25:
        question = draw.choice(("Please: ", "Hi, ", "Hello. ", "So, ", "One question: ", "Tell me, ")) + question
    if draw.random() < 0.1:
        question += draw.choice((" Thanks.", " Please.", " Be brief."))
    return question
