"""Other people's modules: several files, nested objects, a constructor that waits, lists, optional results, chains.

What is printed follows from the recorded rules (module-protocol, "What is printed"); below a list the answer keeps the
query's shape, as the command line of 0.21 leaves it (its query builder stops at the first list).
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ci.engine.call import cli as call

from .conftest import Opener, copied, opened_once

pytestmark = pytest.mark.long

MODULES = Path(__file__).parents[1] / "modules"
Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The module's folder."""
    return copied(MODULES / "zoo", tmp_path_factory.mktemp("others") / "zoo")


@pytest.fixture(scope="module")
def open_zoo() -> Iterator[Opener]:
    """One session and one process for all calls."""
    with opened_once() as opener:
        yield opener


@pytest.fixture
def run(zoo: Path, open_zoo: Opener, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> Any:
    """Runs words; the exit status, standard output and standard error."""
    monkeypatch.chdir(zoo)

    def words(line: str) -> tuple[int, str, str]:
        status = call.program(line.split(), open_zoo)
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return words


@pytest.mark.parametrize(
    ("line", "printed"),
    [
        ("call made", "a.txt"),
        ("call source entries", "a.txt\n"),
        ("call --tags a,b myself tags", "a\nb\nmore\n"),
        ("call animal --name Leo feed --name hay --grams 7 feed --name bone feeling", "calm!!"),
        ("call animal --name Leo feed --name hay --grams 7 feed --name bone best name", "hay"),
        ("call animal --name Leo best grams", "<nil>"),
        ("call animal --name Leo diet", "MEAT"),
        ("call animal --name Leo --diet plants diet", "PLANTS"),
        ("call animal --name Leo home file --path a.txt contents", "meadow\n"),
        ("call animal --name Leo papers name", "birth\ntrip\n"),
        ("call animals name", "a0\na1\n"),
        ("call maybe", "<nil>"),
        ("call maybe name", "<nil>"),
        ("call maybe --there name", "x"),
        ("call diets", "MEAT\nPLANTS\n"),
        ("call nothing", ""),
        ("call renamed", "here"),
        ("call renamed --from there", "there"),
        ("call cage env-variables name", "A\nB\n"),
        ("call cage sync label --name k", "v"),
        ("call gathered", str(sum(range(30)))),
        ("call keepers", "dagger.provisioning\nhttpx._main\n"),
        ("call caught", "stat none: no such file or directory at ['directory', 'file']"),
    ],
)
def test_a_call_prints(run: Any, line: str, printed: str) -> None:
    """Byte for byte, and nothing goes wrong."""
    assert run(line)[:2] == (0, printed)


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("call -j cage env-variables name", [{"name": "A"}, {"name": "B"}]),
        ("call -j animals name", [{"name": "a0"}, {"name": "a1"}]),
        ("call -j animals meals grams", [{"meals": [{"grams": 0}]}, {"meals": [{"grams": 1}]}]),
        ("call -j animals best grams", [{"best": None}, {"best": None}]),
        ("call -j animal --name Leo papers stat size", [{"stat": {"size": 12}}, {"stat": {"size": 3}}]),
        ("call -j animal --name Leo feed --name hay best name", "hay"),
    ],
)
def test_below_a_list_json_has_the_shape_of_the_query(run: Any, line: str, value: Any) -> None:
    """A value alone is that value; behind a list each member has the names that were asked for."""
    status, out, _ = run(line)
    assert status == 0
    assert json.loads(out) == value


def test_sync_ends_or_continues_a_chain(run: Any) -> None:
    """`sync` evaluates; what is printed is the object, as without it."""
    assert run("call cage sync")[:2] == run("call cage")[:2]


def test_what_only_dagger_s_engine_has_is_listed_and_refused(run: Any) -> None:
    """A socket or repository is an argument like others until it is given; an interface no word can name."""
    listed = run("functions")[1]
    assert "plug " in listed
    assert "Skipped 2 function(s) with unsupported types: noise-of, with" in listed
    status, _, err = run("call plug --socket /run/docker.sock --repository https://example.org/x")
    assert status == 1
    assert "Socket needs a Dagger engine. Run the same words with 'dagger call'." in err


@pytest.mark.parametrize("address", ["https://github.com/a/b", "git@github.com:a/b", "github.com/a/b"])
def test_a_folder_from_git_is_refused_by_name(run: Any, address: str) -> None:
    """Whichever way a repository is written; a folder of such a name would be taken."""
    status, _, err = run(f"call --source {address} made")
    assert status == 1
    assert "a Directory from git needs a Dagger engine. Clone it and give its path." in err


def test_a_place_that_takes_no_output_is_told(run: Any, zoo: Path) -> None:
    """The result is printed all the same; the place is named."""
    status, out, err = run("call made -o dagger.json/x")
    assert (status, out) == (1, "a.txt")
    assert err.rstrip().endswith(f", {zoo}/dagger.json/x. Choose another place.")
