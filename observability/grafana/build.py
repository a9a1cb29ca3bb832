"""Writes dashboards/*.json from boards.py: `python -m observability.grafana.build [--check]`.

The JSON is committed, so that Grafana and the images need no SDK; a test asserts that it is what this writes.
"""

from __future__ import annotations

import sys
from pathlib import Path

from observability.grafana.boards import BOARDS
from observability.grafana.panels import build

DASHBOARDS = Path(__file__).parent / "dashboards"


def generated() -> dict[Path, str]:
    """Each dashboard's file and the text it should hold."""
    return {DASHBOARDS / f"{board.uid}.json": build(board) for board in BOARDS}


def stale() -> list[str]:
    """What differs between the folder and the generated dashboards, one line each; empty when nothing does."""
    wanted = generated()
    lines = [f"{path.name} is left over" for path in DASHBOARDS.glob("*.json") if path not in wanted]
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
    DASHBOARDS.mkdir(exist_ok=True)
    wanted = generated()
    for path in DASHBOARDS.glob("*.json"):
        if path not in wanted:
            path.unlink()
    for path, text in wanted.items():
        path.write_text(text)
    print(f"{len(wanted)} dashboards in {DASHBOARDS.name}/")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
