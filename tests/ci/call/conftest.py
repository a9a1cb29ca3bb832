"""The recorded module, copied and opened once: one `import dagger` serves all recorded calls."""

import contextlib
import shutil
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from ci.engine.module.session import OpenModule, opened
from ci.engine.module.source import find
from ci.engine.schema import cache_folder

RECORDED = Path(__file__).parents[2] / "conformance"
SECRET = "123456789"

Opener = Callable[..., AbstractContextManager[OpenModule]]


def copied(name: Path, to: Path) -> Path:
    """A copy of a module as a repository of its own, for what DefaultPath("/") means."""
    shutil.copytree(name, to, ignore=shutil.ignore_patterns("__pycache__"))
    (to / ".git").mkdir()
    return to


@pytest.fixture(scope="session")
def cache_of_this_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the engine keeps on disk lies in a folder of this run; only base images come from where setup puts them."""
    folder, bases = tmp_path_factory.mktemp("cache"), cache_folder() / "bases"
    if bases.is_dir():
        (folder / "bases").symlink_to(bases)
    return folder


@pytest.fixture(autouse=True)
def cache(cache_of_this_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Set for each test of this folder alone: other folders have caches of their own."""
    monkeypatch.setenv("AGENT_LOOP_CACHE", str(cache_of_this_run))
    monkeypatch.setenv("MY_TOKEN", SECRET)


@pytest.fixture(scope="session")
def probe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The recorded module."""
    return copied(RECORDED / "module", tmp_path_factory.mktemp("recorded") / "probe")


@contextlib.contextmanager
def opened_once() -> Generator[Opener]:
    """An opener that hands out one session and one process, made at the first call."""
    with contextlib.ExitStack() as stack:
        shared: list[OpenModule] = []

        @contextlib.contextmanager
        def open_once(*args: Any, **kwargs: Any) -> Generator[OpenModule]:
            if not shared:
                shared.append(stack.enter_context(opened(*args, **kwargs)))
            yield shared[0]

        yield open_once


@pytest.fixture(scope="session")
def open_probe(probe: Path) -> Iterator[Opener]:
    """An opener of the recorded module for all calls."""
    with opened_once() as opener:
        yield opener


@pytest.fixture
def in_probe(probe: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in the recorded module's folder."""
    monkeypatch.chdir(probe)
    assert find().name == "probe"
    return probe
