"""The OpenAPI document is true: requests made from it never break the service, and answers are what it says."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Generator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.specs.openapi.checks import positive_data_acceptance

from service.app import create_app
from service.backends.scripted import ScriptedBackend
from service.backends.scripts import Script, Turn
from service.settings import Settings
from tests.fakes.server import serving

pytestmark = pytest.mark.long

KEY = {"Authorization": "Bearer al-test-key-0123456789"}
SCRIPT = Script.of(Turn(text="Two words."))


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Generator[str]:
    """A service in a thread: the requests are made by a blocking client."""
    folder = tmp_path_factory.mktemp("schemathesis")
    found: list[str] = []
    ready, over = threading.Event(), threading.Event()

    async def serve() -> None:
        async with serving(
            folder, ScriptedBackend(SCRIPT), max_body=256 * 1024, api_key=KEY["Authorization"][7:]
        ) as server:
            found.append(server.url)
            ready.set()
            await asyncio.to_thread(over.wait)

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    assert ready.wait(60)
    yield found[0]
    over.set()
    thread.join(60)


DOCUMENT = create_app(Settings(backend="scripted")).openapi()
OPERATIONS = {
    operation.label: operation
    for operation in (each.ok() for each in schemathesis.openapi.from_dict(DOCUMENT).get_all_operations())
}


@pytest.mark.parametrize("label", sorted(OPERATIONS))
def test_every_operation(address: str, label: str) -> None:
    """No 5xx, no status, type or body that the document does not have; bad requests and bad keys are refused."""

    @settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(case=OPERATIONS[label].as_strategy())
    def ask(case: Any) -> None:
        if isinstance(case.body, dict):
            case.body.pop("stream", None)  # an event stream is no single document; other tests read those
        if case.query:
            case.query["stream"] = "false"
        # What OpenAI's wire means goes beyond what a schema says, so a valid body may be refused, as a 400.
        case.call_and_validate(base_url=address, timeout=60, headers=KEY, excluded_checks=[positive_data_acceptance])

    ask()


def test_the_document_has_every_route_of_the_api() -> None:
    """Nothing under /v1 is left out."""
    assert len(OPERATIONS) >= 19
    for path in ("/v1/runs", "/v1/chat/completions", "/v1/responses", "/v1/models", "/v1/embeddings"):
        assert any(path in label for label in OPERATIONS), path
