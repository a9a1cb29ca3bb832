"""Chats as tokens, with the mask of what is learned: the assistant's words and the token that ends its turn.

A template is any chat template of the hub, with or without `{% generation %}` marks. The mask comes from rendering
the chat turn by turn: what a turn adds to the text is that turn. That holds only where a longer chat begins with the
shorter one's text, so each step is checked (a template that rewrites earlier turns is refused by name).

Needs `tokenizers` and `jinja2` only, so that checking data does not import torch or transformers.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trainer.errors import DataError, UnsupportedModel

from .formats import BadRow, Example, Message

if TYPE_CHECKING:
    from jinja2 import Template
    from tokenizers import Tokenizer

Span = tuple[int, int]


@dataclass(frozen=True)
class Encoded:
    """A row as tokens: `ids` int32 [n]; `supervised` bool [n], true where the token is to be predicted."""

    ids: np.ndarray
    supervised: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class ChatTokenizer:
    """A tokenizer and its chat template, from a folder laid out as on the hub."""

    folder: Path
    tokenizer: Tokenizer
    source: str
    """The chat template's text; empty where the model has none."""
    tokens: dict[str, str]
    """bos_token, eos_token and the like."""

    @classmethod
    def load(cls, folder: Path) -> ChatTokenizer:
        """Read `tokenizer.json`, `tokenizer_config.json` and, where it is, `chat_template.jinja`."""
        from tokenizers import Tokenizer

        path = folder / "tokenizer.json"
        if not path.exists():
            raise UnsupportedModel(
                f"No tokenizer.json, {folder}. Use a model whose folder has one, or convert its tokenizer first."
            )
        config: dict[str, Any] = {}
        try:
            tokenizer = Tokenizer.from_file(str(path))
            if (folder / "tokenizer_config.json").exists():
                config = json.loads((folder / "tokenizer_config.json").read_text())
        except Exception as error:  # the library has no kind of its own
            raise UnsupportedModel(f"Unreadable tokenizer, {folder}: {error}. Fetch the model again.") from None
        tokens = {}
        for name in ("bos_token", "eos_token", "pad_token", "unk_token"):
            value = config.get(name)
            value = value.get("content") if isinstance(value, dict) else value
            if isinstance(value, str):
                tokens[name] = value
        return cls(folder, tokenizer, _template_source(folder, config), tokens)

    @property
    def pad_id(self) -> int:
        """The id that fills short rows; never attended to by a real token."""
        return self._id("pad_token") or 0

    @property
    def size(self) -> int:
        """One more than the largest id."""
        return max(self.tokenizer.get_vocab(with_added_tokens=True).values()) + 1

    def render(self, messages: Sequence[Message], *, generation: bool = False) -> str:
        """The chat as text; with `generation`, up to where the assistant is to answer.

        A system turn that the template refuses is put before the first user turn, as Gemma's authors advise.
        """
        from jinja2 import TemplateError

        chat = [{"role": m.role, "content": m.content} for m in messages]
        try:
            return self._render(chat, generation)
        except TemplateError as error:
            folded = _fold_system(chat)
            if folded is None:
                raise BadRow(f"The chat template refuses the row: {error}. Correct the row's turns.") from None
            try:
                return self._render(folded, generation)
            except TemplateError as second:
                raise BadRow(f"The chat template refuses the row: {second}. Correct the row's turns.") from None

    def spans(self, messages: Sequence[Message]) -> tuple[str, list[Span]]:
        """The chat's text and the character ranges to learn: each assistant turn through its end mark."""
        # A template that refuses a system turn refuses it at once, so `render` folds each of these alike.
        start = 1 if messages[0].role == "system" else 0
        text = ""
        learned: list[Span] = []
        for i in range(start, len(messages)):
            so_far = self.render(messages[: i + 1])
            if messages[i].role == "assistant":
                asked = self.render(messages[:i], generation=True)
                _check_prefix(asked, so_far, i)
                learned.append((len(asked), len(so_far.rstrip())))
            _check_prefix(text, so_far, i)
            text = so_far
        return text, learned

    def encode(self, examples: Sequence[Example]) -> list[Encoded | BadRow]:
        """Encode examples (all at once: the tokenizer works in parallel); a bad one comes back as its reason."""
        rendered: list[tuple[str, list[Span]] | BadRow] = []
        for example in examples:
            try:
                rendered.append(self._plain(example.text) if example.text else self.spans(example.messages))
            except BadRow as error:
                rendered.append(error)
        texts = [r[0] for r in rendered if not isinstance(r, BadRow)]
        encodings = iter(self.tokenizer.encode_batch(texts, add_special_tokens=False))
        out: list[Encoded | BadRow] = []
        for example, item in zip(examples, rendered, strict=True):
            if isinstance(item, BadRow):
                out.append(item)
                continue
            encoding = next(encodings)
            out.append(self._mask(encoding, item[1], chat=not example.text))
        return out

    def _mask(self, encoding: Any, learned: list[Span], *, chat: bool) -> Encoded | BadRow:
        ids = np.asarray(encoding.ids, dtype=np.int32)
        offsets = np.asarray(encoding.offsets, dtype=np.int64).reshape(-1, 2)
        supervised = np.zeros(len(ids), dtype=bool)
        for start, end in learned:
            inside = (offsets[:, 0] >= start) & (offsets[:, 1] <= end) & (offsets[:, 1] > offsets[:, 0])
            supervised |= inside
            last = np.flatnonzero(inside)
            if chat and not (len(last) and int(ids[last[-1]]) in self._special):
                return BadRow(
                    "The end of the assistant's turn is no special token, so the model would never learn to stop. "
                    "Use a chat template that ends the turn with one."
                )
        if len(ids):
            supervised[0] = False  # nothing predicts the first token
        return Encoded(ids, supervised)

    def _plain(self, text: str) -> tuple[str, list[Span]]:
        begin, end = self.tokens.get("bos_token", ""), self.tokens.get("eos_token", "")
        return f"{begin}{text}{end}", [(len(begin), len(begin) + len(text) + len(end))]

    def _id(self, name: str) -> int | None:
        token = self.tokens.get(name)
        return None if token is None else self.tokenizer.token_to_id(token)

    def _render(self, chat: list[dict[str, str]], generation: bool) -> str:
        if not chat:
            return ""
        return self._template.render(messages=chat, add_generation_prompt=generation, **self.tokens)

    @cached_property
    def _special(self) -> frozenset[int]:
        added = self.tokenizer.get_added_tokens_decoder()
        return frozenset(i for i, token in added.items() if token.special)

    @cached_property
    def _template(self) -> Template:
        if not self.source:
            raise DataError(
                [f"No chat template, {self.folder}. Use an instruction-tuned model, or rows of the form 'text'."]
            )
        return _environment().from_string(self.source)


def _environment() -> Any:
    from jinja2 import TemplateError, nodes
    from jinja2.ext import Extension
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """`{% generation %}` marks what to learn for other trainers; here the marks are only skipped."""

        tags = {"generation"}  # noqa: RUF012 - jinja's interface

        def parse(self, parser: Any) -> nodes.Node | list[nodes.Node]:
            next(parser.stream)
            return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    def raise_exception(message: str) -> Any:
        raise TemplateError(message)

    # trim_blocks, lstrip_blocks and the loop controls are what the hub's templates are written for.
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols", Generation]
    )
    names: Any = environment.globals
    names["raise_exception"] = raise_exception
    environment.filters["tojson"] = lambda value, **kw: json.dumps(value, ensure_ascii=False, **kw)
    return environment


def _template_source(folder: Path, config: dict[str, Any]) -> str:
    if (folder / "chat_template.jinja").exists():
        return (folder / "chat_template.jinja").read_text()
    template = config.get("chat_template") or ""
    if isinstance(template, list):  # several by name
        by_name = {t.get("name"): t.get("template", "") for t in template}
        template = by_name.get("default") or next(iter(by_name.values()), "")
    return str(template)


def _fold_system(chat: list[dict[str, str]]) -> list[dict[str, str]] | None:
    if len(chat) < 2 or chat[0]["role"] != "system" or chat[1]["role"] != "user":
        return None
    first = {"role": "user", "content": f"{chat[0]['content']}\n\n{chat[1]['content']}"}
    return [first, *chat[2:]]


def _check_prefix(before: str, after: str, turn: int) -> None:
    if not after.startswith(before):
        raise BadRow(
            f"The chat template rewrites earlier turns at turn {turn + 1}, so what is learned cannot be told. "
            "Split the row so that the last turn is the only assistant turn."
        )
