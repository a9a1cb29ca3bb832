"""A proxy of its own for each: trusted networks, limits, a service that is gone or moves."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

import pytest

from observability.nginx.render import Proxy, Split
from tests.fakes.dns import NameServer
from tests.fakes.programs import Programs, free_port
from tests.observability.nginx.proxies import (
    HTTP,
    Upstream,
    elsewhere,
    served_by,
    start,
    start_without_health,
)

pytestmark = pytest.mark.in_image


def test_trusted_networks_may_choose_the_variant(programs: Programs, plain: Proxy, tmp_path: Path) -> None:
    """From a trusted address X-Variant wins over the draw, for checks before traffic."""
    proxy = elsewhere(plain, tmp_path, trusted=("127.0.0.0/8",))
    url = start(programs, proxy, Split(0, deployed=True))
    for variant in ("stable", "canary"):
        assert HTTP.get(f"{url}/v1/runs", headers={"X-Variant": variant}).json()["name"] == variant


def test_too_many_requests_get_429(programs: Programs, plain: Proxy, tmp_path: Path) -> None:
    """Beyond rate and burst of one address nginx answers 429 itself."""
    url = start(programs, elsewhere(plain, tmp_path, rate=1, burst=5))
    codes = Counter(HTTP.get(f"{url}/v1/runs").status_code for _ in range(20))
    assert codes[429] >= 10
    assert codes[200] >= 3


def test_a_dead_service_is_said_in_json(programs: Programs, plain: Proxy, tmp_path: Path) -> None:
    """When nobody listens the visitor gets 503, Retry-After, and the API's form of an error."""
    url = start_without_health(programs, elsewhere(plain, tmp_path, stable=f"127.0.0.1:{free_port()}"))
    reply = HTTP.get(f"{url}/v1/runs")
    assert reply.status_code == 503
    assert reply.headers["Retry-After"] == "5"
    assert reply.json()["error"]["type"] == "unavailable"


def test_a_new_address_is_noticed(programs: Programs, plain: Proxy, tmp_path: Path) -> None:
    """After a container is replaced its name points elsewhere; nginx follows without a reload."""
    first = Upstream("before", "127.0.0.2")
    second = Upstream("after", "127.0.0.3", first.port)
    try:
        with NameServer({"agent": ["127.0.0.2"]}) as names:
            proxy = elsewhere(plain, tmp_path, stable=f"agent:{first.port}", resolver=names.address, resolve_every="1s")
            url = start(programs, proxy)
            assert served_by(url, "a") == "before"
            names.names["agent"] = ["127.0.0.3"]
            first.close()
            deadline = time.monotonic() + 20
            while (reply := HTTP.get(f"{url}/v1/runs")).status_code != 200 or reply.json()["name"] != "after":
                assert time.monotonic() < deadline
                time.sleep(0.2)
            assert names.asked >= 2
    finally:
        second.close()
