"""Exit 0 if the service answers `/health`, else 1: the container's health check, which needs no shell and no curl.

    python -m service.healthcheck            asks port AGENT_LOOP_PORT, or 8000
    python -m service.healthcheck /ready     asks another path

Standard library only, so it starts in a few hundredths of a second and never loads the service.
"""

import http.client
import os
import sys


def main(argv: list[str]) -> int:
    """Ask once, 3 seconds at most."""
    path = argv[0] if argv else "/health"
    host = os.environ.get("AGENT_LOOP_HOST") or "127.0.0.1"
    if host in ("0.0.0.0", "::", "[::]"):  # noqa: S104  (what a server binds, not what one connects to)
        host = "127.0.0.1"
    port = os.environ.get("AGENT_LOOP_PORT") or "8000"
    try:
        connection = http.client.HTTPConnection(host.strip("[]"), int(port), timeout=3)
        connection.request("GET", path)
        status = connection.getresponse().status
    except (OSError, ValueError, http.client.HTTPException) as error:
        print(f"No answer from {host}:{port}{path}: {error}.", file=sys.stderr)
        return 1
    if status != 200:
        print(f"Status {status} from {host}:{port}{path}.", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
