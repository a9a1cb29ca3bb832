"""One service for the tests of a file that need nothing special of theirs."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import pytest

from tests.service.openai.clients import Shared, client_of


@pytest.fixture(scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Shared]:
    async with client_of(tmp_path_factory.mktemp("openai")) as both:
        yield both
