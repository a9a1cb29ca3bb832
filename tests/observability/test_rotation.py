"""Files of lines that rotate by size."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from observability.rotation import RotatingLines

pytestmark = pytest.mark.in_image


@settings(deadline=None)
@given(lines=st.lists(st.text("ab", max_size=30), max_size=60))
def test_the_newest_lines_are_kept_whole_and_in_order(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str]
) -> None:
    """Reading the files from oldest to newest gives a suffix of what was written; no file exceeds its limit."""
    path = tmp_path_factory.mktemp("rotation") / "log.jsonl"
    log = RotatingLines(path, limit=100, keep=3)
    for line in lines:
        log.write(line)
    log.close()
    files = [path.with_name(f"{path.name}.{n}") for n in range(3, 0, -1)] + [path]
    kept = [line for file in files if file.exists() for line in file.read_text().split("\n")[:-1]]
    assert kept == lines[len(lines) - len(kept) :]
    assert all(file.stat().st_size <= 100 for file in files if file.exists())
    assert len(kept) >= min(len(lines), 3)
    assert not path.with_name("log.jsonl.4").exists()


def test_a_restart_goes_on_in_the_same_file(tmp_path: Path) -> None:
    """Opening again appends."""
    for line in ("one", "two"):
        log = RotatingLines(tmp_path / "log")
        log.write(line)
        log.close()
    assert (tmp_path / "log").read_text() == "one\ntwo\n"
