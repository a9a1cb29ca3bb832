"""What can be asked of the world outside: a container registry, a model's size, the time. Nothing here raises."""

from __future__ import annotations

import email.utils
import json
import os
import socket
import time
import urllib.error
import urllib.parse
import urllib.request
from http.client import HTTPException

REGISTRY = ("registry-1.docker.io", 443)
MODELS = "https://registry.ollama.ai"
SECONDS = 3.0


def registry_answers(address: tuple[str, int] = REGISTRY, seconds: float = SECONDS) -> bool:
    """Whether a connection to the default registry opens in time."""
    try:
        with socket.create_connection(address, timeout=seconds):
            return True
    except OSError:
        return False


def model_size(model: str, registry: str = MODELS) -> int | None:
    """Bytes of a model of Ollama's library, the sum of what its manifest names; None when that is not to be had."""
    name, _, tag = model.partition(":")
    if name.count("/") > 1:  # of another registry
        return None
    place = name if "/" in name else f"library/{name}"
    address = f"{registry}/v2/{urllib.parse.quote(place)}/manifests/{urllib.parse.quote(tag or 'latest', safe='')}"
    try:
        with urllib.request.urlopen(address, timeout=SECONDS) as answer:  # noqa: S310 - a constant's, or a test's
            manifest = json.load(answer)
        return sum(int(layer["size"]) for layer in manifest["layers"]) or None
    except (OSError, HTTPException, ValueError, KeyError, TypeError):
        return None


def clock_skew() -> float | None:
    """Seconds this clock is ahead of a web server's `Date`, asked of AGENT_LOOP_CLOCK_URL; None when not to be had."""
    url = os.environ.get("AGENT_LOOP_CLOCK_URL", "https://registry-1.docker.io/v2/")
    if not url.startswith(("http://", "https://")):
        return None
    request = urllib.request.Request(url, method="HEAD")  # noqa: S310 - the scheme was checked above
    try:
        with urllib.request.urlopen(request, timeout=SECONDS) as answer:  # noqa: S310
            date = answer.headers.get("Date")
    except urllib.error.HTTPError as error:
        date = error.headers.get("Date")
    except (OSError, HTTPException, ValueError):
        return None
    if not date:
        return None
    return time.time() - email.utils.parsedate_to_datetime(date).timestamp()
