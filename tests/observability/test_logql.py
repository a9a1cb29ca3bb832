"""The queries of the board of log lines, read by the grammar that Grafana's own editor uses; it comes from npm."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent
BOARD = HERE.parents[1] / "observability" / "logs" / "dashboards" / "agent-loop-logs.json"
ASKED = {
    "nothing": {"service": ".+", "run": "", "words": "", "__auto": "1m"},
    "everything": {"service": "agent|nginx", "run": "run_01", "words": 'said "no" | so', "__auto": "1m30s"},
}
"""What a reader has in the fields at the top, as Grafana puts it into a query."""


@pytest.fixture(scope="module")
def grammar(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the program that finds faults in LogQL, with what it needs."""
    if shutil.which("npm") is None:
        pytest.skip("no npm here, which brings the grammar of LogQL")
    folder = tmp_path_factory.mktemp("logql")
    shutil.copytree(HERE / "logql", folder, dirs_exist_ok=True)
    words = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=120)
    if done.returncode:
        pytest.skip(f"npm cannot bring the grammar of LogQL here: {done.stderr.strip()[-300:]}")
    return folder


def faults(grammar: Path, queries: list[str]) -> list[list[str]]:
    """For each query the pieces that are no LogQL."""
    done = subprocess.run(
        ["node", "faults.mjs"], cwd=grammar, input=json.dumps(queries), capture_output=True, text=True, check=True
    )
    found: list[list[str]] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("asked", ASKED)
def test_every_query_of_the_board_is_logql(grammar: Path, asked: str) -> None:
    """With its fields empty and filled, no piece of a query is left over."""
    panels = json.loads(BOARD.read_text())["panels"]
    texts = [target["expr"] for panel in panels for target in panel.get("targets", [])]
    queries = [re.sub(r"\$(\w+)", lambda match: ASKED[asked][match[1]], text) for text in texts]
    assert len(queries) == 3
    assert faults(grammar, queries) == [[], [], []]


def test_the_grammar_finds_what_is_wrong(grammar: Path) -> None:
    """A missing bracket, a filter without words: a query with a fault does not pass."""
    assert all(faults(grammar, ["sum by (level (rate({a=`b`}[1m]))", "{a=`b`} |= |", "{a=`b`} | c=~d"]))
