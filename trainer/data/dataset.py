"""A file as sequences to train and evaluate on, with a hash of all that reaches the model.

dataset = prepare(config.data, tokenizer, seed=0)
dataset.order(epoch=2)      the sequences of an epoch, a pure function of (seed, epoch)
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trainer.errors import DataError
from trainer.settings import DataConfig

from . import formats, packing, reader
from .formats import BadRow, Example
from .template import ChatTokenizer, Encoded


@dataclass(frozen=True)
class Facts:
    """What `data check` and the plan say about a file. Counts are rows unless they say tokens."""

    path: Path
    file_hash: str
    format: str
    guessed: bool
    rows: int
    train_rows: int
    eval_rows: int
    duplicates: int
    truncated: int
    lengths: tuple[int, ...]
    """Tokens of each row, before truncation."""
    supervised_tokens: int
    tokens: int


@dataclass(frozen=True)
class Dataset:
    """Rows as tokens, and which rows make up each sequence."""

    rows: tuple[Encoded, ...]
    examples: tuple[Example, ...]
    train: tuple[tuple[int, ...], ...]
    """Each training sequence's row indices; several where rows are packed."""
    eval: tuple[tuple[int, ...], ...]
    seed: int
    facts: Facts
    digest: str
    """sha256 over all tokens, masks and the grouping: equal digests train equally."""

    def order(self, epoch: int) -> np.ndarray:
        """The indices into `train` in the order of this epoch (from 0)."""
        return np.random.default_rng((self.seed, epoch)).permutation(len(self.train))


def read(config: DataConfig) -> tuple[list[Example], str, reader.Problems]:
    """Read and parse the file: its examples, the format, and the problems so far."""
    problems = reader.Problems(config.path)
    rows = reader.read_rows(config.path, problems)
    name = formats.detect(rows) if config.format == "auto" else config.format
    if name is None:
        if rows:
            keys = ", ".join(map(repr, rows[0].value)) or "none"
            problems.add(
                rows[0].line,
                f"Unknown format, keys {keys}. Use one of {', '.join(formats.FORMATS)} (--set data.format=).",
            )
        return [], "unknown", problems
    return formats.parse(rows, name, problems), name, problems


def prepare(config: DataConfig, tokenizer: ChatTokenizer, seed: int) -> Dataset:
    """Read, parse, encode, cut, split and pack. Raises DataError with up to 20 problems."""
    examples, name, problems = read(config)
    lengths: list[int] = []
    rows: list[Encoded] = []
    kept: list[Example] = []
    for example, encoded in zip(examples, tokenizer.encode(examples), strict=True):
        if isinstance(encoded, BadRow):
            problems.add(example.line, str(encoded))
            continue
        cut = Encoded(encoded.ids[: config.max_length], encoded.supervised[: config.max_length])
        if not cut.supervised.any():
            problems.add(example.line, _nothing_left(encoded, config.max_length))
            continue
        lengths.append(len(encoded))
        rows.append(cut)
        kept.append(example)
    problems.raise_if_any()
    prints = [e.fingerprint() for e in kept]
    held_out = [_held_out(p, config.eval_fraction, seed) for p in prints]
    train = [i for i, out in enumerate(held_out) if not out]
    evaluation = [i for i, out in enumerate(held_out) if out]
    if not train:
        raise DataError(
            [f"No training rows, {config.path}: all {len(rows)} are held out. Lower data.eval_fraction or add rows."]
        )
    facts = Facts(
        config.path,
        reader.file_hash(config.path),
        name,
        config.format == "auto",
        len(rows),
        len(train),
        len(evaluation),
        len(prints) - len(set(prints)),
        sum(n > config.max_length for n in lengths),
        tuple(lengths),
        int(sum(r.supervised.sum() for r in rows)),
        sum(len(r) for r in rows),
    )
    groups, eval_groups = _group(rows, train, config), _group(rows, evaluation, config)
    digest = _digest(rows, groups, eval_groups)
    return Dataset(tuple(rows), tuple(kept), groups, eval_groups, seed, facts, digest)


def _nothing_left(encoded: Encoded, max_length: int) -> str:
    if encoded.supervised.any():
        first = int(np.flatnonzero(encoded.supervised)[0])
        return (
            f"Nothing left to learn: the answer begins at token {first + 1}, rows are cut at {max_length}. "
            "Raise data.max_length or shorten the row."
        )
    return "Nothing to learn in the row. Add an answer or delete the row."


def _held_out(fingerprint: bytes, fraction: float, seed: int) -> bool:
    """Equal rows land on the same side, whatever else the file holds."""
    draw = hashlib.sha256(seed.to_bytes(4, "big") + fingerprint).digest()
    return int.from_bytes(draw[:8], "big") < fraction * 2**64


def _group(rows: Sequence[Encoded], indices: list[int], config: DataConfig) -> tuple[tuple[int, ...], ...]:
    if not config.packing:
        return tuple((i,) for i in indices)
    groups = packing.pack([len(rows[i]) for i in indices], config.max_length)
    return tuple(tuple(indices[i] for i in group) for group in groups)


def _digest(rows: Sequence[Encoded], *groupings: tuple[tuple[int, ...], ...]) -> str:
    digest = hashlib.sha256()
    for row in rows:
        digest.update(len(row).to_bytes(4, "big") + row.ids.tobytes() + row.supervised.tobytes())
    for grouping in groupings:
        digest.update(repr(grouping).encode())
    return digest.hexdigest()
