"""The scripted backend: plays by conversation, keeps time, fails when told."""

from __future__ import annotations

import json
import time
from pathlib import Path

import anyio
import pytest
from jsonschema import validate

from service.backends.base import (
    Backend,
    BackendOverloaded,
    BackendProtocolError,
    ChatRequest,
    Delta,
    Message,
    ModelNotFound,
    Sampling,
    ToolSpec,
)
from service.backends.scripted import ScriptedBackend
from service.backends.scripts import Call, Rule, Script, Turn
from service.errors import StartupError

pytestmark = [pytest.mark.anyio, pytest.mark.in_image]

CALCULATOR = ToolSpec("calculator", "", {"type": "object"})


def ask(*messages: Message, **fields: object) -> ChatRequest:
    return ChatRequest("scripted", messages or (Message("user", "hello"),), **fields)  # type: ignore[arg-type]


async def play(backend: Backend, request: ChatRequest) -> list[Delta]:
    return [delta async for delta in backend.chat(request)]


def text(deltas: list[Delta]) -> str:
    return "".join(delta.text for delta in deltas)


class TestTurns:
    async def test_it_is_a_backend(self) -> None:
        """It satisfies the protocol that the loop is written against."""
        assert isinstance(ScriptedBackend(), Backend)

    async def test_the_turn_follows_from_the_conversation(self) -> None:
        """The n-th call after a user message plays the n-th turn, also in another instance (a resumed run)."""
        script = Script.of(Turn(calls=(Call("calculator", {"expression": "6*7"}),)), Turn(text="It is ${tool}."))
        first = await play(ScriptedBackend(script), ask(tools=(CALCULATOR,)))
        (call,) = first[0].tool_calls
        assert (call.name, json.loads(call.arguments)) == ("calculator", {"expression": "6*7"})
        assert first[-1].finish is not None
        assert first[-1].finish.reason == "tool_calls"
        history = (
            Message("user", "hello"),
            Message("assistant", tool_calls=(call,)),
            Message("tool", "42", tool_call_id=call.id),
        )
        second = await play(ScriptedBackend(script), ask(*history))
        assert text(second) == "It is 42."
        assert second[-1].finish is not None
        assert (second[-1].finish.reason, second[-1].finish.usage.completion_tokens) == ("stop", 3)

    async def test_the_first_matching_rule_plays_with_its_groups(self) -> None:
        """Patterns look at the last user message; user text is never a template itself."""
        script = Script((Rule(r"add (?P<a>\d+)", (Turn(text="got ${a} from ${user}"),)), Rule("", (Turn("no"),))))
        deltas = await play(ScriptedBackend(script), ask(Message("user", "add 5 ${tool}")))
        assert text(deltas) == "got 5 from add 5 ${tool}"

    async def test_the_demo_calculates_with_its_tool(self) -> None:
        """The demo's arithmetic rule hands the expression over."""
        (call,) = (await play(ScriptedBackend(), ask(Message("user", "what is 12 * (3+4)?"))))[-2].tool_calls
        assert json.loads(call.arguments) == {"expression": "12 * (3+4)"}

    async def test_one_delta_ends_the_call(self) -> None:
        """Exactly one finish, in the last delta, and no empty deltas before it."""
        deltas = await play(ScriptedBackend(Script.of(Turn(text="a b c"))), ask())
        assert [bool(delta.finish) for delta in deltas] == [False, False, False, True]
        assert all(delta.text or delta.finish for delta in deltas)

    async def test_max_tokens_cuts_with_length(self) -> None:
        """A cut answer says so."""
        deltas = await play(ScriptedBackend(Script.of(Turn(text="a b c d"))), ask(sampling=Sampling(max_tokens=2)))
        assert text(deltas) == "a b"
        assert deltas[-1].finish is not None
        assert deltas[-1].finish.reason == "length"

    async def test_a_schema_is_obeyed(self) -> None:
        """With a format the text is JSON of that schema."""
        schema = {
            "type": "object",
            "properties": {"answer": {"type": "string"}, "n": {"type": "integer", "minimum": 2}},
            "required": ["answer", "n"],
        }
        deltas = await play(ScriptedBackend(Script.of(Turn(text="hi"))), ask(format=schema))
        validate(json.loads(text(deltas)), schema)

    async def test_an_unknown_model_is_refused(self) -> None:
        """By name, with what there is."""
        with pytest.raises(ModelNotFound, match="nope"):
            await play(ScriptedBackend(), ChatRequest("nope", (Message("user", "x"),)))


class TestTimeAndFailure:
    async def test_delay_and_pace_are_kept(self) -> None:
        """The first chunk waits for `delay`, the others for `pace`."""
        start = time.monotonic()
        await play(ScriptedBackend(Script.of(Turn(text="a b c", delay=0.05, pace=0.02))), ask())
        assert time.monotonic() - start >= 0.09

    async def test_closing_early_counts_as_an_abort(self) -> None:
        """`aclose` and cancellation end the call at once and leave nothing open."""
        backend = ScriptedBackend(Script.of(Turn(text="a b c", pace=30)))
        stream = backend.chat(ask())
        assert (await anext(stream)).text == "a"
        await stream.aclose()  # type: ignore[attr-defined]
        with anyio.move_on_after(0.02):
            await play(backend, ask())
        assert (backend.open_calls, backend.aborted) == (0, 2)

    async def test_a_call_that_ended_is_no_abort(self) -> None:
        """Only calls that were cut short count."""
        backend = ScriptedBackend(Script.of(Turn(text="a")))
        await play(backend, ask())
        assert (backend.open_calls, backend.aborted) == (0, 0)

    async def test_failure_before_and_after_the_first_byte(self) -> None:
        """The error says whether anything was handed on."""
        backend = ScriptedBackend(Script.of(Turn(text="a b", fail="overloaded", fail_times=1)))
        with pytest.raises(BackendOverloaded) as early:
            await play(backend, ask())
        assert early.value.before_first_byte
        assert text(await play(backend, ask())) == "a b"
        late_backend = ScriptedBackend(Script.of(Turn(text="a b", fail="protocol", fail_after=1)))
        seen: list[Delta] = []

        async def collect() -> None:
            async for delta in late_backend.chat(ask()):
                seen.append(delta)

        with pytest.raises(BackendProtocolError) as late:
            await collect()
        assert (text(seen), late.value.before_first_byte) == ("a", False)


class TestFiles:
    async def test_a_script_file_is_read(self, tmp_path: Path) -> None:
        """Rules, turns and calls come from JSON."""
        path = tmp_path / "s.json"
        path.write_text(
            json.dumps(
                {"models": ["m"], "rules": [{"when": "hi", "turns": [{"calls": [{"name": "clock"}]}, {"text": "x"}]}]}
            )
        )
        script = Script.read(path)
        assert script.models == ("m",)
        assert script.rules[0].turns == (Turn(calls=(Call("clock"),)), Turn(text="x"))

    @pytest.mark.parametrize(
        ("content", "problem"),
        [
            ("{", "Expecting"),
            ("{}", "no field 'rules'"),
            ('{"rules": [{"when": "(", "turns": []}]}', "unterminated"),
            ('{"rules": [{"when": "", "turns": [{"txt": "a"}]}]}', "unknown field 'txt'"),
            ('{"rules": [{"when": "", "turns": [{"fail": "boom"}]}]}', "'boom'"),
            ("[]", "list"),
        ],
    )
    async def test_a_bad_file_is_named_with_its_fault(self, tmp_path: Path, content: str, problem: str) -> None:
        """One line: what, where, why."""
        path = tmp_path / "s.json"
        path.write_text(content)
        with pytest.raises(StartupError) as error:
            Script.read(path)
        assert str(path) in str(error.value)
        assert problem in str(error.value)


class TestEmbeddings:
    async def test_equal_texts_have_equal_unit_vectors(self) -> None:
        """Deterministic, of one length, normalised."""
        result = await ScriptedBackend().embed("scripted", ["a", "b", "a"])
        a, b, again = result.vectors
        assert a == again != b
        assert sum(value * value for value in a) == pytest.approx(1)
