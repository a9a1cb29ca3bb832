"""A stable service, a canary, and a proxy in front of both."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from observability.nginx.render import Proxy
from tests.fakes.programs import free_port
from tests.observability.nginx.proxies import HTTP, Upstream


@pytest.fixture(scope="session", autouse=True)
def _close() -> Iterator[None]:
    yield
    HTTP.close()


@pytest.fixture(scope="module")
def upstreams() -> Iterator[tuple[Upstream, Upstream]]:
    """A stable service and a canary."""
    pair = Upstream("stable"), Upstream("canary")
    yield pair
    for each in pair:
        each.close()


@pytest.fixture(scope="module")
def plain(upstreams: tuple[Upstream, Upstream], tmp_path_factory: pytest.TempPathFactory) -> Proxy:
    """A proxy without TLS in front of both, that trusts nobody and lets this test's many requests through."""
    folder = str(tmp_path_factory.mktemp("nginx"))
    stable, canary = (f"127.0.0.1:{each.port}" for each in upstreams)
    return Proxy(
        tls=False, http_port=free_port(), stable=stable, canary=canary, grafana="", folder=folder, temp=folder,
        rate=10000, burst=10000, connections=1000, body_limit="1m", resolver="127.0.0.1",
    )  # fmt: skip
