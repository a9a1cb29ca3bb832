"""Writes the dashboards' JSON from the boards: `python -m observability.grafana.build [--check]`.

The JSON is committed, so that Grafana and the images need no SDK; a test asserts that it is what this writes.
"""

from __future__ import annotations

import sys
from pathlib import Path

from observability.grafana.boards import BOARDS, SEARCHED
from observability.grafana.panels import build

DASHBOARDS = Path(__file__).parent / "dashboards"
LOGS = Path(__file__).parents[1] / "logs" / "dashboards"
"""Of what Loki keeps: Grafana is given this folder only where Loki runs."""


def generated() -> dict[Path, str]:
    """Each dashboard's file and the text it should hold."""
    placed = [*((DASHBOARDS, board) for board in BOARDS), *((LOGS, board) for board in SEARCHED)]
    return {folder / f"{board.uid}.json": build(board) for folder, board in placed}


def left_over() -> list[Path]:
    """Files that no board writes."""
    wanted = generated()
    return [path for folder in (DASHBOARDS, LOGS) for path in folder.glob("*.json") if path not in wanted]


def stale() -> list[str]:
    """What differs between the folder and the generated dashboards, one line each; empty when nothing does."""
    wanted = generated()
    lines = [f"{path.name} is left over" for path in left_over()]
    for path, text in wanted.items():
        if not path.exists():
            lines.append(f"{path.name} is missing")
        elif path.read_text() != text:
            lines.append(f"{path.name} differs from its board")
    return sorted(lines)


def main(arguments: list[str]) -> int:
    """Write the dashboards, or with --check say what is stale and return 1."""
    if "--check" in arguments:
        lines = stale()
        print("\n".join(f"{line}. Run 'python -m observability.grafana.build'." for line in lines), end="")
        return 1 if lines else 0
    for path in left_over():
        path.unlink()
    wanted = generated()
    for path, text in wanted.items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    print(f"{len(wanted)} dashboards")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
