"""Rows as the model sees them, with what is learned in green (or between « and » where there is no colour)."""

from __future__ import annotations

from rich.text import Text

from .template import ChatTokenizer, Encoded


def preview(row: Encoded, tokenizer: ChatTokenizer, *, colour: bool, limit: int = 400) -> Text:
    """The first `limit` tokens of a row as text; special tokens are shown, line feeds as they are."""
    out = Text()
    ids, supervised = row.ids[:limit].tolist(), row.supervised[:limit].tolist()
    start = 0
    for end in range(1, len(ids) + 1):
        if end < len(ids) and supervised[end] == supervised[start]:
            continue
        piece = tokenizer.tokenizer.decode(ids[start:end], skip_special_tokens=False)
        if not supervised[start]:
            out.append(piece, style="dim" if colour else "")
        else:
            out.append(piece if colour else f"«{piece}»", style="bold green" if colour else "")
        start = end
    if len(row) > limit:
        out.append(f" … {len(row) - limit} more tokens", style="italic")
    return out
