"""The three small modules of `tests/ci/modules`, each copied, opened for planning once and planned without a build."""

import contextlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ci.engine.call.args import parse
from ci.engine.call.core import TypeCatalog
from ci.engine.module.session import registered
from ci.engine.module.source import ModuleSource, find
from ci.engine.plan.planner import Planned, Planner, planning

MODULES = Path(__file__).parents[1] / "modules"


def quiet(line: str) -> None:
    """What a module prints is of no interest here."""


class Opened:
    """One module, open for planning."""

    def __init__(self, source: ModuleSource, catalog: TypeCatalog, planner: Planner):
        self.source, self.catalog, self.planner = source, catalog, planner

    def plan(self, *words: str) -> Planned:
        """The plan of a call in the command line's words."""
        return self.planner.plan(parse(words, self.catalog))


Modules = Callable[[str], Opened]


@pytest.fixture(scope="session")
def cache_of_this_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Registrations are kept in a folder of this run."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def cache(cache_of_this_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Set for each test of this folder alone: other folders have caches of their own."""
    monkeypatch.setenv("AGENT_LOOP_CACHE", str(cache_of_this_run))


@pytest.fixture(scope="session")
def modules(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Modules]:
    """Opens a module by name; each is opened once for the whole run."""
    opened: dict[str, Opened] = {}
    with contextlib.ExitStack() as stack:

        def open_module(name: str) -> Opened:
            if name not in opened:
                folder = tmp_path_factory.mktemp("modules") / name
                shutil.copytree(MODULES / name, folder, ignore=shutil.ignore_patterns("__pycache__"))
                source = find(str(folder))
                catalog = TypeCatalog.of(name, registered(source, quiet))
                opened[name] = Opened(source, catalog, stack.enter_context(planning(source, catalog, quiet)))
            return opened[name]

        yield open_module
