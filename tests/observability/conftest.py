"""Fixtures of these tests: real programs that end with the module's tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.fakes.programs import Programs


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Programs]:
    """Starts real programs; all end with the module's tests."""
    started = Programs(tmp_path_factory.mktemp("programs"))
    yield started
    started.close()
