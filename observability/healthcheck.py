"""`python -m observability.healthcheck PORT`: exit 0 when the job's own page `/health` answers 200, else 1.

The containers' health check: no shell and no further program needed. Imports the standard library only.
"""

from __future__ import annotations

import sys
import urllib.request


def main(arguments: list[str]) -> int:
    """Ask localhost:PORT/health; one line on standard error when it does not answer."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{int(arguments[0])}/health", timeout=3) as reply:
            return 0 if reply.status == 200 else 1
    except (OSError, ValueError, IndexError) as error:
        print(f"Not healthy: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
