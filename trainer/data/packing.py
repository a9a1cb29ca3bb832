"""Short rows share a sequence: best-fit decreasing, so that few tokens of a batch are padding."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence


def pack(lengths: Sequence[int], capacity: int) -> list[tuple[int, ...]]:
    """Group row indices so that each group's lengths sum to at most `capacity`.

    Rows are placed longest first, each into the fullest group that still takes it (ties: the lower index), so the
    result depends on nothing else. Within a group rows keep the file's order; groups are ordered by their first row.
    Raises ValueError for a row longer than `capacity`.
    """
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    groups: list[list[int]] = []
    room: list[tuple[int, int]] = []  # (free tokens, group), sorted
    for index in order:
        length = lengths[index]
        if length > capacity:
            raise ValueError(f"row {index} has {length} tokens, more than {capacity}")
        at = bisect_left(room, (length, -1))
        if at == len(room):
            groups.append([index])
            insort(room, (capacity - length, len(groups) - 1))
        else:
            free, group = room.pop(at)
            groups[group].append(index)
            insort(room, (free - length, group))
    return sorted((tuple(sorted(group)) for group in groups), key=lambda g: g[0])
