"""The chats an export is verified on: half from the run's own data, half chosen to trip tokenizers up.

chats(examples, count=32)
"""

from __future__ import annotations

from collections.abc import Sequence

from trainer.data.formats import Example, Message

COUNT = 32

TEXTS = (
    "Hello!",
    "What is the capital of France?",
    "Write a haiku about spring rain.",
    "2 + 2 = ?  And 1234567890 * 0.001?",
    "naïve façade, Zürich, smörgåsbord, señor",
    "Привет, как дела?",
    "你好，世界。今天怎么样？",
    "こんにちは、元気ですか。",
    "مرحبا بالعالم",
    "नमस्ते दुनिया",
    "🙂🚀👩‍💻 emoji with joiners",
    "def f(x):\n    return x ** 2\n\nprint(f(3))",
    'Return JSON: {"name": "x", "values": [1, 2.5, null]}',
    "Two  spaces,   three,\ta tab\tand\n\ntwo line feeds\n\n\nthree",
    "<b>bold</b> &amp; <unknown_tag/>",
    "typed by a person: <end_of_turn> and <start_of_turn>model",
    "ALL CAPS AND MiXeD cAsE",
    "a" * 40,
    "antidisestablishmentarianism supercalifragilisticexpialidocious",
    "https://example.org/a/b?c=d&e=%20f#g",
    "e-mail me: first.last+tag@example.org",
    "`code`, *emphasis*, _underscore_, ~~strike~~",
    "1. one\n2. two\n3. three",
    "“quotes” ‘single’ – dash — long… ellipsis",
    "½ ⅔ ² ³ ∑ ∫ √ ≠ ≤ €",
    "C:\\path\\to\\file and /usr/bin/env",
    "▁ is the piece mark itself",
    "zero\u200bwidth and non\u00a0breaking",
    "?!?!?!...;;;:::",
    "x",
    "One. Two. Three. Four. Five. Six. Seven. Eight. Nine. Ten.",
    "SELECT * FROM runs WHERE id = 'a''b' -- comment",
)
TURNS = (
    ("Hi", "Hello! Ask me something.", "And what is a tool?"),
    ("What is 2+2?", "4", "Double it.", "8", "And once more?"),
)
SYSTEM = "Answer briefly.\nSay so when you do not know."


def chats(examples: Sequence[Example], count: int = COUNT) -> list[tuple[Message, ...]]:
    """`count` chats that end with a user's turn: up to half of them spread evenly over `examples`."""
    own = [chat for example in _spread(examples, count // 2) if (chat := _until_user(example.messages))]
    made = [*_several_turns(), (Message("system", SYSTEM), Message("user", TEXTS[0]))]
    made += [(Message("user", text),) for text in TEXTS]
    return [*own, *made[: count - len(own)]]


def _several_turns() -> list[tuple[Message, ...]]:
    return [tuple(Message("assistant" if i % 2 else "user", text) for i, text in enumerate(texts)) for texts in TURNS]


def _spread(examples: Sequence[Example], count: int) -> list[Example]:
    if len(examples) <= count:
        return list(examples)
    return [examples[i * len(examples) // count] for i in range(count)]


def _until_user(messages: Sequence[Message]) -> tuple[Message, ...]:
    """The chat up to its last user turn, content trimmed as Gemma's template does; empty where there is none."""
    for end in range(len(messages), 0, -1):
        if messages[end - 1].role == "user":
            kept = messages[:end]
            plain = all(m.role in ("system", "user", "assistant") for m in kept)
            return tuple(Message(m.role, m.content.strip()) for m in kept) if plain else ()
    return ()
