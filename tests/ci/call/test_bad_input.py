"""What goes wrong before anything runs: one clear line, the documented exit status, nothing left behind."""

import json
import shutil
from pathlib import Path

import pytest

from ci.engine.call import cli as call
from ci.engine.module.errors import FunctionFailed
from ci.engine.module.session import opened
from ci.engine.module.source import find

from .conftest import Opener

pytestmark = pytest.mark.long

Capture = pytest.CaptureFixture[str]


def test_no_module_is_told_with_the_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    """Outside of any module the folder is named, and what to do."""
    monkeypatch.chdir(tmp_path)
    assert call.program(["call", "hello"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"Error: No module, no dagger.json, {tmp_path} or above. Go to a module's folder")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "No module description"),
        ('{"sdk": "python"}', "No module description, 'name'"),
        ('{"name": "x", "sdk": {"source": "go"}}', "Module is not written in Python, sdk go"),
        ('{"name": "x", "sdk": "python", "dependencies": [{"name": "y"}]}', "Module dependencies need a Dagger engine"),
    ],
)
def test_a_module_that_cannot_run_here_is_told(
    tmp_path: Path, text: str, said: str, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """The file is named, and what to run instead."""
    (tmp_path / "dagger.json").write_text(text)
    monkeypatch.chdir(tmp_path)
    assert call.program(["functions"]) == 1
    err = capsys.readouterr().err
    assert err.startswith(f"Error: {said}")
    assert str(tmp_path / "dagger.json") in err


def test_a_module_that_does_not_load_says_why(
    tmp_path: Path, cache: None, probe: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """An import that fails is named with the folder; the traceback is shown without -s, and nothing is kept."""
    broken = tmp_path / "broken"
    shutil.copytree(probe, broken)
    source = broken / "ci" / "src" / "probe" / "__init__.py"
    source.write_text("import not_there_at_all\n" + source.read_text())
    monkeypatch.chdir(broken)
    assert call.program(["functions"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert "Error: Module does not load, ModuleLoadError: No module named 'not_there_at_all'" in err
    assert "Traceback" in err or "ModuleNotFoundError" in err


def test_the_words_before_the_command_are_the_programs(probe: Path, capsys: Capture) -> None:
    """Flags may stand before `call`; anything else there is told."""
    assert call.program(["-m", str(probe), "-s", "--progress", "plain", "check", "-l"]) == 0
    assert capsys.readouterr().out.startswith("Name ")
    assert call.program(["--nope", "call", "hello"]) == 1
    assert "unknown flag: --nope" in capsys.readouterr().err
    assert call.program(["-s", "build"]) == 2
    assert "One of call, functions, check must follow" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["ask-service", "--svc", "tcp://localhost:9"], "Service needs a Dagger engine. Run the same words with"),
        (["read-dir", "--source", "https://example.org/x.git"], "a Directory from git needs a Dagger engine. Clone it"),
        (["make-container", "terminal"], "Container.terminal needs a Dagger engine."),
        (["make-container", "as-service"], "needs a Dagger engine."),
    ],
)
def test_what_needs_an_engine_is_refused_by_name(
    in_probe: Path, open_probe: Opener, words: list[str], said: str, capsys: Capture
) -> None:
    """The thing is named, with the way out."""
    assert call.program(["-s", "call", *words], open_probe) == 1
    assert said in capsys.readouterr().err


def test_an_unknown_check_is_told_with_those_there_are(in_probe: Path, open_probe: Opener, capsys: Capture) -> None:
    """A misspelt check does not pass."""
    assert call.program(["-s", "check", "pases"], open_probe) == 1
    assert 'unknown check "pases", this module has fails, passes' in capsys.readouterr().err


def test_one_failing_check_fails_the_run(in_probe: Path, open_probe: Opener, capsys: Capture) -> None:
    """All checks run; what failed is told, and the status says so."""
    assert call.program(["-s", "check"], open_probe) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert len([line for line in err.splitlines() if line.startswith("Error: ")]) == 1
    assert "FunctionError: not good" in err


QUITS = """
import anyio
from dagger import function, object_type

@object_type
class Quits:
    @function
    def at_once(self) -> str:
        raise SystemExit(5)

    @function
    async def in_a_task(self) -> str:
        async def leave() -> None:
            raise SystemExit(6)

        async with anyio.create_task_group() as group:
            group.start_soon(leave)
            await anyio.sleep(60)
        return ""

    @function
    def hello(self) -> str:
        return "hello"

    @function
    def count(self) -> int:
        return "many"
"""


@pytest.fixture
def quits(tmp_path: Path) -> Path:
    """A module whose functions end the process, or return what they do not say."""
    source = tmp_path / "src" / "quits" / "__init__.py"
    source.parent.mkdir(parents=True)
    source.write_text(QUITS)
    (tmp_path / "dagger.json").write_text(json.dumps({"name": "quits", "sdk": "python"}))
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "quits"\nversion = "0"\n')
    return tmp_path


def test_a_function_that_quits_fails_alone(quits: Path) -> None:
    """`sys.exit` in a function is an error with its status; the process and its session go on with other calls."""
    with opened(find(str(quits)), show=lambda line: None) as module:
        main = module.functions.call("Quits", "", None, {})
        for name, status in (("at_once", 5), ("in_a_task", 6)):
            with pytest.raises(FunctionFailed, match=f"its process gave status {status}"):
                module.functions.call("Quits", name, main, {})
            assert module.functions.call("Quits", "hello", main, {}) == "hello"


def test_a_function_that_returns_something_else_is_told(
    quits: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """The function, what it gave and what it says are in one line, and nothing is printed as its result."""
    monkeypatch.chdir(quits)
    assert call.program(["-s", "call", "count"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert 'count gave "many", but says it gives a whole number' in err


class TestDefaultPaths:
    """What DefaultPath may read."""

    def test_absolute_counts_from_the_repository_and_relative_from_the_module(self, tmp_path: Path) -> None:
        """`/x` lies in the repository's root, `x` beside dagger.json."""
        module = tmp_path / "repository" / "tools"
        module.mkdir(parents=True)
        (tmp_path / "repository" / ".git").mkdir()
        (module / "dagger.json").write_text(json.dumps({"name": "tools", "sdk": "python"}))
        source = find(str(module))
        assert source.context_path("/docs") == tmp_path / "repository" / "docs"
        assert source.context_path("docs") == module / "docs"
        assert source.context_path("../docs") == tmp_path / "repository" / "docs"

    def test_nothing_outside_of_the_context_is_read(self, tmp_path: Path) -> None:
        """Without a repository the module's own folder is all there is."""
        (tmp_path / "dagger.json").write_text(json.dumps({"name": "tools", "sdk": "python"}))
        with pytest.raises(Exception, match="outside of the module's context"):
            find(str(tmp_path)).context_path("../secrets")
