"""Golden prompts: cases are read strictly, answers judged as written, and the exit status decides a release."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from service.backends.base import ToolCall, ToolSpec
from service.backends.scripted import ScriptedBackend
from service.backends.scripts import Call, Rule, Script, Turn
from service.evals import cases
from service.evals.cli import app
from service.evals.run import evaluate
from service.evals.score import Answer, judge, report, wilson_low
from tests.fakes.server import serving

pytestmark = pytest.mark.in_image

WEATHER = {
    "name": "weather",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
WANTS = {"id": "oslo", "prompt": "Weather in Oslo?", "tools": [WEATHER], "calls": [{"name": "weather"}]}
IDLE = {"id": "chat", "prompt": "Hello!", "tools": [WEATHER], "calls": []}
SUM = {"id": "sum", "prompt": "What is 12 * 7?", "contains": ["84"]}


def written(folder: Path, *lines: Any) -> Path:
    path = folder / "cases.jsonl"
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines))
    return path


def case(**fields: Any) -> cases.Case:
    return cases.parse({"prompt": "p", **fields}, "one")


def called(name: str = "weather", arguments: str = '{"city": "Oslo"}') -> ToolCall:
    return ToolCall("c", name, arguments)


class TestFile:
    def test_a_file_is_read_in_order(self, tmp_path: Path) -> None:
        """Empty lines are skipped; a case without an id is named by its line."""
        path = written(tmp_path, SUM, "", {"prompt": "Hi", "matches": "^H"})
        assert [each.id for each in cases.read(path)] == ["sum", "line-3"]

    @pytest.mark.parametrize(
        ("line", "said"),
        [
            ("{", "line 1"),
            ("[]", "a case is a JSON object"),
            ({"contains": ["x"]}, "no field 'prompt'"),
            ({"prompt": ""}, "prompt is no text"),
            ({"prompt": "p"}, "nothing is expected"),
            ({"prompt": "p", "contain": "x"}, "unknown field 'contain'"),
            ({"prompt": "p", "matches": "("}, "no regular expression"),
            ({"prompt": "p", "schema": {"type": "nope"}}, "no JSON schema"),
            ({"prompt": "p", "contains": [1]}, "no text or list of texts"),
            ({"prompt": "p", "calls": [{"name": "weather"}]}, "not in tools"),
            ({"prompt": "p", "calls": [{}], "tools": [WEATHER]}, "no field 'name'"),
        ],
    )
    def test_a_wrong_line_is_named(self, tmp_path: Path, line: Any, said: str) -> None:
        """With what is wrong and where to read how it should be."""
        with pytest.raises(cases.BadCases, match="line 1") as caught:
            cases.read(written(tmp_path, line))
        assert said in str(caught.value)

    def test_ids_are_unique_and_there_is_a_case(self, tmp_path: Path) -> None:
        """Two of one id, an empty file and a missing one are refused."""
        for path in (written(tmp_path, SUM, SUM), tmp_path / "none.jsonl"):
            with pytest.raises(cases.BadCases, match=path.name):
                cases.read(path)
        with pytest.raises(cases.BadCases, match="No cases"):
            cases.read(written(tmp_path, ""))


class TestJudgement:
    @pytest.mark.parametrize(
        ("wanted", "text", "good"),
        [
            ({"contains": "Rome"}, "In ROME.", True),
            ({"contains": ["Rome", "Oslo"]}, "In Rome.", False),
            ({"matches": r"^\d+$"}, "84", True),
            ({"matches": r"^\d+$"}, "84.", False),
            ({"equals": "yes"}, " yes\n", True),
            ({"equals": "yes"}, "Yes", False),
            ({"schema": {"type": "object", "required": ["a"]}}, '{"a": 1}', True),
            ({"schema": {"type": "object", "required": ["a"]}}, "{}", False),
            ({"schema": {"type": "object"}}, "no json", False),
        ],
    )
    def test_text(self, wanted: dict[str, Any], text: str, good: bool) -> None:
        """Each way to expect a text."""
        assert judge(case(**wanted), Answer(text)).passed == good

    @pytest.mark.parametrize(
        ("wanted", "made", "good"),
        [
            ([{"name": "weather"}], [called()], True),
            ([{"name": "weather", "arguments": {"city": "Oslo"}}], [called()], True),
            ([{"name": "weather", "arguments": {"city": "Rome"}}], [called()], False),
            ([{"name": "weather"}], [], False),
            ([{"name": "weather"}], [called(arguments="{}")], False),
            ([{"name": "weather"}], [called(), called("other")], False),
            ([{"name": "weather"}, {"name": "weather"}], [called()], False),
            ([], [], True),
            ([], [called()], False),
        ],
    )
    def test_calls(self, wanted: list[Any], made: list[ToolCall], good: bool) -> None:
        """The right tools with valid arguments, no foreign ones, and none where none is wanted."""
        assert judge(case(tools=[WEATHER], calls=wanted), Answer("", tuple(made))).passed == good

    def test_the_report_tells_triggers_from_arguments(self) -> None:
        """F1 over calling when one should; schema accuracy over the calls that were made."""
        found = [
            case(id=name, tools=[WEATHER], calls=calls) for name, calls in (("a", [{"name": "weather"}]), ("b", []))
        ]
        verdicts = [judge(found[0], Answer("", (called(arguments="{}"),))), judge(found[1], Answer("", (called(),)))]
        result = report(found, verdicts)
        assert (result.passed, result.schema_accuracy) == (0, 0.5)
        assert result.trigger_f1 == pytest.approx(2 / 3)

    @given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
    def test_the_bound_is_below_the_share(self, counts: tuple[int, int]) -> None:
        """Wilson's lower bound lies in [0, share] and tightens with more attempts."""
        passed, attempts = counts
        low = wilson_low(passed, attempts)
        assert 0 <= low <= passed / attempts + 1e-12
        assert wilson_low(10 * passed, 10 * attempts) >= low - 1e-12


SCRIPT = Script(
    (
        Rule("weather", (Turn(calls=(Call("weather", {"city": "Oslo"}),)),)),
        Rule("12", (Turn(text="It is 84."),)),
        Rule("down", (Turn(fail="unavailable"),)),
        Rule("", (Turn(text="Hi."),)),
    )
)


def test_a_backend_is_asked_every_case_in_order() -> None:
    """Each as often as wanted, failures as verdicts; constrained and native tools give the same."""

    async def ask(script: Script, found: Sequence[cases.Case]) -> list[Any]:
        return list(await evaluate(ScriptedBackend(script), "scripted", found, repeat=2, concurrency=3))

    found = [cases.parse(each, "") for each in (WANTS, IDLE, SUM, {"id": "no", "prompt": "down", "contains": ["x"]})]
    verdicts = anyio.run(ask, SCRIPT, found)
    assert [each.case for each in verdicts] == ["oslo", "oslo", "chat", "chat", "sum", "sum", "no", "no"]
    assert [each.passed for each in verdicts] == [True] * 6 + [False] * 2
    assert "backend_unavailable" in verdicts[-1].error
    text = json.dumps({"tool": "weather", "arguments": {"city": "Oslo"}})
    constrained = Script.of(Turn(text=text), native_tools=False)
    assert all(each.passed for each in anyio.run(ask, constrained, found[:1]))
    assert found[0].tools == (ToolSpec("weather", "", WEATHER["parameters"]),)


class TestCommand:
    @pytest.fixture(autouse=True)
    def _scripted(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        script = tmp_path / "script.json"
        script.write_text(
            json.dumps({"models": ["scripted"], "rules": [{"when": "", "turns": [{"text": "It is 84."}]}]})
        )
        monkeypatch.setenv("AGENT_LOOP_BACKEND", "scripted")
        monkeypatch.setenv("AGENT_LOOP_MODEL", "scripted")
        monkeypatch.setenv("AGENT_LOOP_SCRIPT", str(script))

    def test_good_enough(self, tmp_path: Path) -> None:
        """Exit status 0, the figures printed, the report written."""
        done = CliRunner().invoke(app, ["run", str(written(tmp_path, SUM)), "--json", str(tmp_path / "report.json")])
        assert done.exit_code == 0, done.output
        assert "1 of 1" in done.output
        assert json.loads((tmp_path / "report.json").read_text())["pass_rate"] == 1.0

    def test_below_a_threshold(self, tmp_path: Path) -> None:
        """Exit status 1, with the case, what is wrong with it, and the threshold."""
        bad = {"id": "capital", "prompt": "Italy?", "contains": ["Rome"]}
        done = CliRunner().invoke(app, ["run", str(written(tmp_path, SUM, bad)), "--min-pass", "0.9"])
        assert done.exit_code == 1
        assert "does not contain 'Rome'" in done.output
        assert "0.500 is below 0.9" in done.output
        passing = CliRunner().invoke(app, ["run", str(written(tmp_path, SUM, bad)), "--min-pass", "0.5"])
        assert passing.exit_code == 0

    def test_nothing_to_judge(self, tmp_path: Path) -> None:
        """Exit status 2 for a bad file, an unknown model and a service that is not there."""
        good = str(written(tmp_path, SUM))
        for words in (
            [str(tmp_path / "none.jsonl")],
            [good, "--model", "nope"],
            [good, "--url", "http://127.0.0.1:9/v1"],
        ):
            done = CliRunner().invoke(app, ["run", *words])
            assert done.exit_code == 2, (words, done.output)

    @pytest.mark.anyio
    async def test_a_deployment_is_asked_as_its_clients_do(self, tmp_path: Path, monkeypatch: Any) -> None:
        """`--url` goes through the service's own API with the key from the environment, agents included."""
        monkeypatch.setenv("AGENT_LOOP_API_KEY", "al-test-key-0123456789")
        script = Script.of(Turn(calls=(Call("calculator", {"expression": "12*7"}),)), Turn(text="It is ${tool}."))
        async with serving(tmp_path, ScriptedBackend(script), api_key="al-test-key-0123456789") as server:
            words = ["run", str(written(tmp_path, SUM)), "--url", f"{server.url}/v1", "--model", "agent/default"]
            done = await anyio.to_thread.run_sync(lambda: CliRunner().invoke(app, words))
        assert done.exit_code == 0, done.output
