"""Health, readiness, metrics, and the rules that hold for every answer."""

from pathlib import Path

import pytest

from service.app import create_app
from service.backends.scripted import ScriptedBackend
from service.backends.scripts import Script
from service.settings import Settings
from tests.fakes.server import serving

pytestmark = [pytest.mark.anyio, pytest.mark.in_image, pytest.mark.long]


async def test_health_and_ready(tmp_path: Path) -> None:
    """/health tells the process is alive, /ready that backend, store and process take work."""
    async with serving(tmp_path) as server:
        health = await server.client.get("/health")
        ready = await server.client.get("/ready")
        assert health.json()["status"] == "ok"
        assert ready.status_code == 200
        assert ready.json() == {"ready": True, "checks": {"draining": "ok", "backend": "ok", "store": "ok"}}


async def test_ready_names_what_is_missing_while_health_stays_good(tmp_path: Path) -> None:
    """Without the model /ready is 503 and says why; /health does not depend on it."""
    async with serving(tmp_path, ScriptedBackend(Script(models=("other",)))) as server:
        ready = await server.client.get("/ready")
        assert ready.status_code == 503
        assert "scripted" in ready.json()["checks"]["backend"]
        assert (await server.client.get("/health")).status_code == 200
        server.parts.drain.begin()
        assert (await server.client.get("/ready")).json()["checks"]["draining"] == "draining"


async def test_metrics_count_requests_by_route_template(tmp_path: Path) -> None:
    """/metrics has the request histogram by route template; a path without a route never becomes a label."""
    async with serving(tmp_path) as server:
        await server.client.get("/health")
        await server.client.get("/etc/passwd")
        page = (await server.client.get("/metrics")).text
        assert 'http_route="/health",le="+Inf"} 1.0' in page
        assert 'http_route="unmatched"' in page
        assert "passwd" not in page


async def test_errors_have_the_openai_shape(tmp_path: Path) -> None:
    """Unknown paths, methods and oversized bodies answer with OpenAI's error object."""
    async with serving(tmp_path, max_body=2048) as server:
        for answer, status in (
            (await server.client.get("/nope"), 404),
            (await server.client.delete("/health"), 405),
        ):
            assert answer.status_code == status
            assert set(answer.json()["error"]) == {"message", "type", "param", "code"}


def test_no_base_http_middleware() -> None:
    """Only pure ASGI layers: a BaseHTTPMiddleware hides disconnects and costs more than the relay."""
    from starlette.middleware.base import BaseHTTPMiddleware

    app = create_app(Settings(backend="scripted"))
    layers = [layer.cls for layer in app.user_middleware]
    assert layers
    assert not [layer for layer in layers if isinstance(layer, type) and issubclass(layer, BaseHTTPMiddleware)]
