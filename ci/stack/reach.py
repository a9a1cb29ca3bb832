"""Whether a container registry can be reached from here."""

from __future__ import annotations

import socket

REGISTRY = ("registry-1.docker.io", 443)


def registry_answers(address: tuple[str, int] = REGISTRY, seconds: float = 3.0) -> bool:
    """Whether a connection to the default registry opens in time."""
    try:
        with socket.create_connection(address, timeout=seconds):
            return True
    except OSError:
        return False
