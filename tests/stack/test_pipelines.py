"""The pipelines as `up` asks them: every image in one session, with one process of the module, built side by side."""

from __future__ import annotations

import ast
import json
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
from ci.engine.graph import ROOT, call
from ci.engine.module.calls import ModuleFunctions
from ci.engine.module.process import ModuleProcess
from ci.engine.needs import Ship
from ci.stack import descriptions, images, pipelines
from ci.stack.descriptions import Descriptions
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
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where descriptions are kept for this test alone."""
    path = tmp_path / "kept" / "descriptions.json"
    of_this_repository = Descriptions.of_this_repository

    def here() -> Descriptions:
        made = of_this_repository()
        monkeypatch.setattr(made, "_path", path)
        return made

    monkeypatch.setattr(Descriptions, "of_this_repository", here)
    return path


@pytest.fixture
def seen(kept: Path, monkeypatch: pytest.MonkeyPatch) -> Seen:
    """Notes from now on; what the module offers is known before, for that takes a process too."""
    from ci.engine.module.session import registered
    from ci.engine.module.source import find

    registered(find(str(pipelines.ROOT)), print)
    made, start, function = Seen(), ModuleProcess.__init__, ModuleFunctions.call

    def started(process: ModuleProcess) -> None:
        made.processes += 1
        start(process)

    def called(functions: ModuleFunctions, owner: str, name: str, *rest: object) -> object:
        made.called.append(name)
        return function(functions, owner, name, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(ModuleProcess, "__init__", started)
    monkeypatch.setattr(ModuleFunctions, "call", called)
    monkeypatch.setattr(shipping, "ship", made.ship)
    return made


@pytest.mark.parametrize("expected", [False, True])
def test_two_images_cost_one_process_and_one_module(
    expected: bool, seen: Seen, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever the person stands; the constructor runs once, and neither image waits for the other."""
    monkeypatch.chdir(tmp_path)
    with pipelines.opened(TWO if expected else None) as export:
        assert seen.processes == int(expected)
        export(TWO)
    assert seen.processes == 1
    assert seen.called == ["", "build_runtime", "build_dev"]
    assert sorted(seen.shipped) == sorted(TWO)


def test_what_was_described_takes_no_module(seen: Seen, kept: Path) -> None:
    """The second time nothing of the module runs; other words, or notes that cannot be read, take it again."""
    for _ in range(2):
        with pipelines.opened(TWO) as export:
            export(TWO)
    assert seen.processes == 1
    assert seen.called == ["", "build_runtime", "build_dev"]
    assert sorted(seen.shipped) == sorted([*TWO, *TWO])
    seen.both = threading.Barrier(1)
    with pipelines.opened() as export:
        export({"agent-loop/dev:local": ["--revision", "two", "build-dev"]})
    assert seen.called[3:] == ["", "build_dev"]
    before = json.loads(kept.read_text())
    kept.write_text("[")
    with pipelines.opened() as export:
        export({"agent-loop/dev:local": ["--revision", "two", "build-dev"]})
    assert seen.processes == 3
    described = json.loads(kept.read_text())
    assert described == {key: before[key] for key in described}, "a process of its own describes the same"


@pytest.mark.parametrize("changed", ["the module", "the engine", "the words"])
def test_a_description_follows_from_module_engine_and_words(
    changed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Any other module, engine or word, and it is not known."""
    monkeypatch.setattr(descriptions, "ENGINE", tmp_path / "engine")
    (tmp_path / "engine").mkdir()
    code = tmp_path / "engine" / "graph.py"
    code.write_text("before")
    node = call(ROOT, "Container", "container", {})
    Descriptions(tmp_path, "module 1").keep(["build-dev"], node)
    assert Descriptions(tmp_path, "module 1").find(["build-dev"]) == node
    if changed == "the engine":
        code.write_text("after")
    words = ["build-dev", "--x"] if changed == "the words" else ["build-dev"]
    assert Descriptions(tmp_path, "module 2" if changed == "the module" else "module 1").find(words) is None


def test_functions_that_make_images_only_describe() -> None:
    """A function that awaits nothing cannot read contents, so what it describes follows from its code alone."""
    module = ast.parse((pipelines.ROOT / "ci" / "src" / "agent_loop_ci" / "main.py").read_text())
    kinds = {
        node.name: type(node) for node in ast.walk(module) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    wanted = {image.call[0].replace("-", "_") for mode in images.OF_MODE.values() for image in mode}
    assert {kinds[name] for name in wanted} == {ast.FunctionDef}


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
