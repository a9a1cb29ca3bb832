"""What `agent-loop data check` prints: what a file holds, before anybody waits for a model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from .dataset import Facts


def report(facts: Facts, max_length: int, sequences: int) -> Iterator[str]:
    """The facts of a file, line by line."""
    how = "guessed from the keys; --set data.format= overrides" if facts.guessed else "as asked"
    yield f"file         {facts.path.name}, sha256 {facts.file_hash[:12]}"
    yield f"format       {facts.format} ({how})"
    yield f"rows         {facts.rows}: {facts.train_rows} to train on, {facts.eval_rows} held out"
    yield f"sequences    {sequences} of at most {max_length} tokens"
    share = facts.supervised_tokens / max(1, facts.tokens)
    yield f"tokens       {facts.tokens}, of which {facts.supervised_tokens} ({share:.0%}) are learned"
    yield f"duplicates   {facts.duplicates} rows"
    yield f"truncated    {facts.truncated} rows" + (
        " (raise data.max_length to keep them whole)" if facts.truncated else ""
    )
    yield "lengths      tokens a row"
    yield from (f"  {line}" for line in histogram(facts.lengths))


def histogram(lengths: Sequence[int], width: int = 30) -> Iterator[str]:
    """Counts of lengths in bins that double: `   33-   64  #### 12`."""
    bins: dict[int, int] = {}
    for length in lengths:
        top = 1 << max(4, (length - 1).bit_length())
        bins[top] = bins.get(top, 0) + 1
    most = max(bins.values(), default=1)
    for top in sorted(bins):
        low = 1 if top == 16 else top // 2 + 1
        yield f"{low:>6}-{top:<6} {'#' * max(1, bins[top] * width // most)} {bins[top]}"
