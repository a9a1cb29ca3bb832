"""Start the service, ask it what a person would, stop it: run inside the runtime image by the function `smoke`.

Its text is handed to the image's interpreter, so it may use the standard library only. Exit status: 0 when every
question was answered as it should be.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request

URL = "http://127.0.0.1:8000"
START = 60.0
"""Seconds to wait for the first answer, generous for a loaded machine."""
STOP = 40.0


def ask(path: str) -> tuple[int, str]:
    """Status and body of a GET; status 0 while nothing listens."""
    try:
        with urllib.request.urlopen(URL + path, timeout=5) as reply:  # noqa: S310  (a constant address)
            return reply.status, reply.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError:
        return 0, ""


def require(claim: str, holds: bool, seen: object) -> None:
    """Print what was seen; end the probe where the claim does not hold."""
    print(f"{'ok' if holds else 'FAILED'}: {claim} ({seen})", flush=True)
    if not holds:
        sys.exit(1)


def wait(service: subprocess.Popen[bytes]) -> int:
    """The status of `/health` once the service answers, or 0 when it ended or the time is up."""
    end = time.monotonic() + START
    while time.monotonic() < end and service.poll() is None:
        status, _ = ask("/health")
        if status:
            return status
        time.sleep(0.1)
    return 0


def main() -> None:
    """One start, a few questions, one stop."""
    require("not root", os.getuid() != 0, f"uid {os.getuid()}")
    environment = {**os.environ, "AGENT_LOOP_HOST": "127.0.0.1", "AGENT_LOOP_DATA_DIR": "/tmp/smoke"}  # noqa: S108
    command = [sys.executable, "-m", "service", "serve"]
    with subprocess.Popen(command, env=environment) as service:
        try:
            status = wait(service)
            require("/health answers 200", status == 200, status)
            check = subprocess.run([sys.executable, "-m", "service.healthcheck"], check=False)
            require("the image's health check passes", check.returncode == 0, f"exit status {check.returncode}")
            status, _ = ask("/ready")
            require("/ready says yes or not yet", status in (200, 503), status)
            status, text = ask("/metrics")
            require("/metrics holds metrics", status == 200 and "# TYPE " in text, f"{status}, {len(text)} bytes")
            service.send_signal(signal.SIGTERM)
            code = service.wait(STOP)
            require("SIGTERM stops it cleanly", code == 0, f"exit status {code}")
        finally:
            service.kill()


main()
