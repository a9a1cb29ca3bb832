"""Asynchronous tests of the service run on asyncio, as uvicorn does."""

import pytest


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"
