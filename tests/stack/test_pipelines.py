"""The pipelines as `up` asks them: every image in one session, with one process of the module, built side by side."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ci.engine.build import shipping
from ci.engine.build.builder import Builder
from ci.engine.build.buildkit import BuildKit
from ci.engine.build.store import Exported, Exports
from ci.engine.errors import FieldError
from ci.engine.module.calls import ModuleFunctions
from ci.engine.module.process import ModuleProcess
from ci.engine.needs import Ship
from ci.stack import images, pipelines
from ci.stack.errors import BuildFailed

TWO: Mapping[str, Sequence[str]] = {
    "agent-loop/runtime:local": ["--revision", "one", "build-runtime"],
    "agent-loop/dev:local": ["--revision", "one", "build-dev"],
}


class Seen:
    """What was started and called, and which images left the session, instead of leaving it."""

    def __init__(self) -> None:
        self.processes = 0
        self.called: list[str] = []
        self.shipped: list[str] = []
        self.both = threading.Barrier(2)

    def ship(self, builder: Builder, need: Ship) -> str:
        """Each waits for the other, so one at a time would never end."""
        self.both.wait(120)
        self.shipped.append(need.target)
        return f"sha256:{'a' * 64}"


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Seen:
    """Notes from now on; what the module offers is known before, for that takes a process too."""
    from ci.engine.module.session import registered
    from ci.engine.module.source import find

    registered(find(str(pipelines.ROOT)), print)
    made, start, call = Seen(), ModuleProcess.__init__, ModuleFunctions.call

    def started(process: ModuleProcess) -> None:
        made.processes += 1
        start(process)

    def called(functions: ModuleFunctions, owner: str, name: str, *rest: object) -> object:
        made.called.append(name)
        return call(functions, owner, name, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(ModuleProcess, "__init__", started)
    monkeypatch.setattr(ModuleFunctions, "call", called)
    monkeypatch.setattr(shipping, "ship", made.ship)
    return made


@pytest.mark.parametrize("at_once", [False, True])
def test_two_images_cost_one_process_and_one_module(
    at_once: bool, seen: Seen, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever the person stands; the constructor runs once, and neither image waits for the other."""
    monkeypatch.chdir(tmp_path)
    with pipelines.opened(at_once=at_once) as export:
        assert seen.processes == int(at_once)
        export(TWO)
    assert seen.processes == 1
    assert seen.called == ["", "build_runtime", "build_dev"]
    assert sorted(seen.shipped) == sorted(TWO)


def test_who_exports_nothing_starts_nothing(seen: Seen) -> None:
    """`backup list` opens the pipelines and needs none."""
    with pipelines.opened():
        pass
    assert seen.processes == 0


def test_a_failed_image_is_named_with_the_line_that_makes_it_alone(
    seen: Seen, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The image that failed and not the one beside it; what went wrong stands above."""

    def ship(builder: Builder, need: Ship) -> str:
        if "dev" in need.target:
            raise FieldError("No space left on the builder's disk.")
        return seen.ship(builder, need)

    seen.both = threading.Barrier(1)
    monkeypatch.setattr(shipping, "ship", ship)
    line = r"agent-loop call --revision one build-dev export-image --name agent-loop/dev:local"
    with pipelines.opened() as export, pytest.raises(BuildFailed, match=rf"Building agent-loop/dev:local .*'{line}'"):
        export(TWO)
    assert "Error: No space left on the builder's disk." in capsys.readouterr().err


def test_ctrl_c_ends_the_builds_that_run(seen: Seen, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is no failed build, and no thread is waited for until its build is done."""
    ended = threading.Event()
    monkeypatch.setattr(Builder, "close", lambda builder: ended.set())

    def ship(builder: Builder, need: Ship) -> str:
        if "dev" in need.target:
            raise KeyboardInterrupt
        assert ended.wait(120), "the other build was not told to end"
        raise FieldError("The build was stopped.")

    monkeypatch.setattr(shipping, "ship", ship)
    with pipelines.opened() as export, pytest.raises(KeyboardInterrupt):
        export({tag: TWO[tag] for tag in sorted(TWO)})


def test_each_image_is_asked_for_under_its_tag_with_this_commit() -> None:
    """What the labels say, the function and its options, and where it goes."""
    asked: dict[str, Sequence[str]] = {}

    def export(lines: Mapping[str, Sequence[str]]) -> None:
        asked.update(lines)
        raise BuildFailed("enough")

    with pytest.raises(BuildFailed):
        images.build((images.TRAINING, images.OPS), export)
    assert {tag: list(words)[-2:] for tag, words in asked.items()} == {
        "agent-loop/training:local": ["build-training", "--tools"],
        "agent-loop/ops:local": [*images.release(), "build-ops"][-2:],
    }


def test_images_noted_at_the_same_moment_are_all_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """None of them is loaded again the next time."""
    monkeypatch.setenv("AGENT_LOOP_CACHE", str(tmp_path))
    exports, exported = Exports(BuildKit({}, None, None)), Exported("inputs", "sha256:0", 0, {})
    names = [f"image-{number}" for number in range(64)]
    with ThreadPoolExecutor(16) as beside:
        list(beside.map(lambda name: exports.note(name, exported), names))
    assert [name for name in names if exports.noted(name) is None] == []
