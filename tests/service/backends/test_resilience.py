"""Retries, circuit breaker, fallback and the counts of calls: all before the first byte, none after it."""

from __future__ import annotations

from typing import Any

import anyio
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from service.backends import create
from service.backends.base import (
    Backend,
    BackendError,
    BackendOverloaded,
    BackendRejected,
    BackendUnavailable,
    ChatRequest,
    Message,
)
from service.backends.circuit import Circuit
from service.backends.observed import Observed, abort_cause
from service.backends.ollama import OllamaBackend
from service.backends.resilience import Fallback, Resilient
from service.backends.scripted import ScriptedBackend
from service.backends.scripts import Script, Turn
from service.backends.watch import OllamaWatch
from service.settings import Settings
from service.telemetry import Metrics, names
from service.telemetry.names import AbortCause, CircuitState
from tests.fakes.ollama import FakeOllama, Fault, Model, Plan

pytestmark = [pytest.mark.anyio, pytest.mark.in_image]


def ask(model: str = "scripted") -> ChatRequest:
    return ChatRequest(model, (Message("user", "hi"),))


def scripted(*turns: Turn, models: tuple[str, ...] = ("scripted",)) -> ScriptedBackend:
    return ScriptedBackend(Script.of(*turns, models=models))


async def text(backend: Backend, request: ChatRequest | None = None) -> str:
    return "".join([delta.text async for delta in backend.chat(request or ask())])


class TestRetries:
    @pytest.mark.parametrize("kind", ["unavailable", "overloaded", "failed"])
    async def test_a_passing_failure_is_not_seen(self, kind: str) -> None:
        """After two failures before the first byte the caller gets the answer, once."""
        inner = scripted(Turn(text="fine", fail=kind, fail_times=2))
        assert await text(Resilient(inner, retries=2, pause=0)) == "fine"
        assert len(inner.requests) == 3

    @pytest.mark.parametrize(
        ("kind", "error"), [("unavailable", BackendUnavailable), ("overloaded", BackendOverloaded)]
    )
    async def test_attempts_are_bounded(self, kind: str, error: type[BackendError]) -> None:
        """The last error comes through, as one from before the first byte."""
        inner = scripted(Turn(fail=kind))
        with pytest.raises(error) as problem:
            await text(Resilient(inner, retries=2, pause=0))
        assert problem.value.before_first_byte
        assert len(inner.requests) == 3

    @pytest.mark.parametrize("kind", ["rejected", "context", "protocol", "stalled"])
    async def test_what_repeating_cannot_cure_is_not_repeated(self, kind: str) -> None:
        """One attempt."""
        inner = scripted(Turn(fail=kind))
        with pytest.raises(BackendError):
            await text(Resilient(inner, pause=0))
        assert len(inner.requests) == 1

    async def test_after_the_first_byte_nothing_is_repeated(self) -> None:
        """What was handed on stays, and the error says so."""
        inner = scripted(Turn(text="a b c", fail="unavailable", fail_after=1))
        seen: list[str] = []

        async def run() -> None:
            async for delta in Resilient(inner, pause=0, fallback=Fallback(inner, "scripted", "scripted")).chat(ask()):
                seen.append(delta.text)

        with pytest.raises(BackendUnavailable) as problem:
            await run()
        assert (seen, problem.value.before_first_byte, len(inner.requests)) == (["a"], False, 1)

    async def test_a_restarted_ollama_is_found_again(self) -> None:
        """Ollama goes away and comes back on its port: the call in between succeeds by its retries."""
        async with FakeOllama() as ollama:
            backend = Resilient(OllamaBackend(ollama.url), retries=5, pause=0.1)
            assert await text(backend, ask("gemma3n")) == "Hello there."
            await ollama.stop()
            async with anyio.create_task_group() as group:
                group.start_soon(_later, 0.3, ollama.restart)
                assert await text(backend, ask("gemma3n")) == "Hello there."
            await backend.aclose()


class TestFallback:
    async def test_the_other_model_answers(self) -> None:
        """The fallback model answers while the first choice stays down, counted with the reason."""
        metrics = Metrics()
        first = scripted(Turn(fail="overloaded"), models=("big",))
        second = scripted(Turn(text="from small"), models=("small",))
        backend = Resilient(first, retries=1, pause=0, fallback=Fallback(second, "small", "big"), metrics=metrics)
        assert await text(backend, ask("big")) == "from small"
        labels = {"from": "big", "to": "small", "reason": "backend_overloaded"}
        assert metrics.value(names.FALLBACKS, **labels) == 1

    async def test_a_model_asked_for_by_name_is_not_replaced(self) -> None:
        """The fallback stands in for the configured model only."""
        first = scripted(Turn(fail="unavailable"), models=("special",))
        backend = Resilient(first, retries=0, fallback=Fallback(first, "small", "big"))
        with pytest.raises(BackendUnavailable):
            await text(backend, ask("special"))


class TestCircuit:
    async def test_it_opens_rests_and_closes(self) -> None:
        """Five failures open the circuit; nobody is asked while it rests; one trial that works closes it."""
        now = 0.0
        metrics = Metrics()
        circuit = Circuit(failures=5, rest=10, clock=lambda: now, changed=metrics.circuit)
        inner = scripted(Turn(text="fine", fail="unavailable", fail_times=5))
        backend = Resilient(inner, retries=0, circuit=circuit, metrics=metrics)
        for _ in range(5):
            with pytest.raises(BackendUnavailable):
                await text(backend)
        assert metrics.value(names.CIRCUIT, state=CircuitState.OPEN) == 1
        with pytest.raises(BackendUnavailable, match="left alone for 10 s") as problem:
            await text(backend)
        assert problem.value.retry_after == 10
        assert len(inner.requests) == 5
        now = 10.0
        assert await text(backend) == "fine"
        assert metrics.value(names.CIRCUIT, state=CircuitState.CLOSED) == 1

    async def test_being_busy_does_not_open_it(self) -> None:
        """An upstream that says "not now" is alive: the circuit stays closed, and the caller hears of it."""
        circuit = Circuit(failures=2)
        backend = Resilient(scripted(Turn(fail="overloaded")), retries=4, pause=0, circuit=circuit)
        with pytest.raises(BackendOverloaded):
            await text(backend)
        assert circuit.state is CircuitState.CLOSED

    async def test_an_abandoned_trial_lets_the_next_one_try(self) -> None:
        """A client that leaves during the trial does not keep the circuit half open for ever."""
        now = 0.0
        circuit = Circuit(failures=1, rest=1, clock=lambda: now)
        circuit.failed()
        now = 2.0
        backend = Resilient(scripted(Turn(text="x", delay=30)), circuit=circuit)
        with anyio.move_on_after(0.02):
            await text(backend)
        assert circuit.blocked() is None


class CircuitMachine(RuleBasedStateMachine):
    """Any order of calls, reports and time."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.circuit = Circuit(failures=3, rest=5, longest=20, clock=lambda: self.now)
        self.calls = 0
        self.in_row = 0

    @rule(seconds=st.floats(0, 30))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def ask(self) -> None:
        if self.circuit.blocked() is None:
            self.calls += 1

    @precondition(lambda self: self.calls)
    @rule(how=st.sampled_from(["succeeded", "failed", "undecided"]))
    def report(self, how: str) -> None:
        self.calls -= 1
        getattr(self.circuit, how)()
        self.in_row = self.in_row + 1 if how == "failed" else 0 if how == "succeeded" else self.in_row

    @invariant()
    def never_stuck(self) -> None:
        """With no call under way, enough time always brings a go-ahead."""
        if not self.calls:
            left = Circuit.blocked(_copy(self.circuit, self.now + 21))
            assert left is None

    @invariant()
    def open_only_after_failures(self) -> None:
        """It is never open without a failure since the last success."""
        if self.circuit.state is CircuitState.OPEN:
            assert self.in_row >= 1


def _copy(circuit: Circuit, now: float) -> Circuit:
    other = Circuit(clock=lambda: now)
    for name in ("state", "_until", "_trial", "_in_row", "_rest"):
        setattr(other, name, getattr(circuit, name))
    return other


TestCircuitMachine = CircuitMachine.TestCase
TestCircuitMachine.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)


class TestCounts:
    async def test_a_call_is_counted_once_with_its_tokens(self) -> None:
        """Duration, first chunk, tokens and context share, under allowed names only."""
        async with FakeOllama(models=[Model("gemma3n"), Model("private")]) as ollama:
            metrics = Metrics(models=["gemma3n"])
            backend = Observed(OllamaBackend(ollama.url, num_ctx=256), metrics)
            await text(backend, ask("gemma3n"))
            await text(backend, ask("private"))
            base: dict[str, str] = {"gen_ai_provider_name": "ollama", "gen_ai_request_model": "gemma3n"}
            assert metrics.value(names.MODEL_CALL, gen_ai_operation_name="chat", error_type="", **base) == 1
            assert metrics.value(names.FIRST_CHUNK, **base) == 1
            assert metrics.value(names.TOKENS, gen_ai_token_type="input", **base) == 5
            assert metrics.value(names.TOKENS, gen_ai_token_type="output", **base) == 4
            assert metrics.value(names.CONTEXT_USED, gen_ai_request_model="gemma3n") == 1
            assert metrics.value(names.OLLAMA_EVAL, model="gemma3n") == 1
            assert metrics.value(names.OLLAMA_EVAL, model="other") == 1
            assert metrics.value(names.UPSTREAM_ATTEMPTS, outcome="ok") == 2
            await backend.aclose()

    @pytest.mark.parametrize(
        ("plan", "outcome"),
        [
            (Plan(fault=Fault.CLOSE), "connect"),
            (Plan(fault=Fault.STATUS, status=503), "busy"),
            (Plan(fault=Fault.STATUS, status=500), "server_error"),
            (Plan(fault=Fault.STATUS, status=400), "refused"),
            (Plan(fault=Fault.CUT, after=1), "broken_stream"),
            (Plan(fault=Fault.NO_DONE, after=1), "no_finish"),
        ],
    )
    async def test_every_end_is_counted_as_what_it_was(self, plan: Plan, outcome: str) -> None:
        """One attempt, one outcome."""
        async with FakeOllama() as ollama:
            metrics = Metrics()
            backend = Observed(OllamaBackend(ollama.url), metrics)
            ollama.plan(plan)
            with pytest.raises(BackendError):
                await text(backend, ask("gemma3n"))
            counts = {each: metrics.value(names.UPSTREAM_ATTEMPTS, outcome=each) for each in names.Attempt}
            assert counts == {each: float(each == outcome) for each in names.Attempt}
            await backend.aclose()

    async def test_truncations_are_counted(self) -> None:
        """A refused prompt and an answer cut at the context's end are counted; not an answer cut at max_tokens."""
        async with FakeOllama() as ollama:
            metrics = Metrics(models=["gemma3n"])
            backend = Observed(OllamaBackend(ollama.url, num_ctx=256), metrics)
            long = ChatRequest("gemma3n", (Message("user", "w " * 300),))
            with pytest.raises(BackendRejected):
                await text(backend, long)
            ollama.plan(Plan(words=["w "] * 999), Plan(reason="length"))
            await text(backend, ask("gemma3n"))
            await text(backend, ask("gemma3n"))
            kinds = {
                kind: metrics.value(names.CONTEXT_TRUNCATIONS, gen_ai_request_model="gemma3n", kind=kind)
                for kind in ("prompt", "answer")
            }
            assert kinds == {"prompt": 1, "answer": 1}
            await backend.aclose()

    async def test_an_abort_has_its_cause(self) -> None:
        """As the caller set it before closing; a call read to its end is none."""
        metrics = Metrics()
        backend = Observed(scripted(Turn(text="a b c", pace=0.01)), metrics)
        stream: Any = backend.chat(ask())
        await anext(stream)
        token = abort_cause.set(AbortCause.CLIENT_GONE)
        await stream.aclose()
        abort_cause.reset(token)
        assert await text(backend) == "a b c"
        assert metrics.value(names.UPSTREAM_ABORTS, cause="client_gone") == 1
        assert metrics.value(names.UPSTREAM_ABORTS, cause="other") == 0
        assert metrics.value(names.UPSTREAM_ATTEMPTS, outcome="aborted") == 1


class TestWatch:
    async def test_memory_and_presence_are_shown(self) -> None:
        """Loaded, GPU share, then unloaded, then gone."""
        async with FakeOllama(models=[Model("gemma3n", size=100, vram=25)]) as ollama:
            metrics = Metrics(models=["gemma3n"])
            backend = OllamaBackend(ollama.url)
            watch = OllamaWatch(backend, metrics)
            await text(backend, ask("gemma3n"))
            await watch.look()
            assert metrics.value(names.OLLAMA_UP) == metrics.value(names.OLLAMA_LOADED, model="gemma3n") == 1
            assert metrics.value(names.OLLAMA_GPU_RATIO, model="gemma3n") == 0.25
            await ollama.stop()
            await ollama.restart()
            await watch.look()
            assert metrics.value(names.OLLAMA_LOADED, model="gemma3n") == 0
            assert b"ollama_model_gpu_ratio{" not in metrics.expose()[0]
            await ollama.stop()
            await watch.look()
            assert metrics.value(names.OLLAMA_UP) == 0
            await backend.aclose()

    async def test_create_starts_and_ends_it(self) -> None:
        """The configured Ollama backend watches while it lives, and leaves no task behind."""
        async with FakeOllama() as ollama:
            metrics = Metrics(models=["gemma3n"])
            backend = create(Settings(backend="ollama", ollama_url=ollama.url), metrics)
            with anyio.fail_after(10):
                while not metrics.value(names.OLLAMA_UP):  # noqa: ASYNC110  (it looks in its own time)
                    await anyio.sleep(0.01)
            assert await text(backend, ask("gemma3n")) == "Hello there."
            await backend.aclose()


class TestAuto:
    async def test_ollama_where_it_answers(self) -> None:
        """`auto` takes a listening Ollama even if a GGUF file is given."""
        async with FakeOllama() as ollama:
            backend = create(Settings(backend="auto", ollama_url=ollama.url))
            assert backend.name == "ollama"
            await backend.aclose()

    async def test_ollama_also_where_nothing_else_is_left(self) -> None:
        """It may come up later; until then it is not ready."""
        backend = create(Settings(backend="auto", ollama_url="http://127.0.0.1:1"))
        assert backend.name == "ollama"
        with pytest.raises(BackendUnavailable):
            await backend.ready("gemma3n")
        await backend.aclose()


async def _later(seconds: float, do: Any) -> None:
    await anyio.sleep(seconds)
    await do()


def test_backends_satisfy_the_protocol() -> None:
    """Each wrapper can stand where a backend can."""
    inner = scripted(Turn())
    assert all(isinstance(each, Backend) for each in (inner, Resilient(inner), Observed(inner, Metrics())))
