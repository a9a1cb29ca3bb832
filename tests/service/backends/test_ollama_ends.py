"""How a stream from Ollama ends: by every fault, by silence, by a reader that leaves."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from service.backends.base import (
    BackendError,
    BackendFailed,
    BackendProtocolError,
    BackendStalled,
    BackendUnavailable,
)
from service.backends.broken import EndedEarly
from service.backends.ollama import OllamaBackend
from service.backends.transport import Timeouts
from tests.fakes.ollama import FakeOllama, Fault, Plan
from tests.fakes.waiting import eventually
from tests.service.backends.asking import ask, collect, failing, text

pytestmark = [pytest.mark.anyio, pytest.mark.in_image]


class TestEnds:
    async def test_the_connection_is_used_again(self, ollama: FakeOllama, backend: OllamaBackend) -> None:
        """A call that ends gives its connection back to the pool."""
        for _ in range(5):
            await collect(backend, ask())
        assert ollama.connections == 1

    @pytest.mark.parametrize("split", [1, 2, 3, 7])
    async def test_bytes_may_be_cut_anywhere(self, ollama: FakeOllama, backend: OllamaBackend, split: int) -> None:
        """Pieces inside a character or a JSON token read as the whole does."""
        ollama.plan(Plan(words=("Grüße", " 🦙", " \u2028x", ' "q"'), split=split))
        assert text(await collect(backend, ask())) == 'Grüße 🦙 \u2028x "q"'

    @pytest.mark.parametrize(
        ("fault", "early", "late"),
        [
            (Fault.CLOSE, BackendUnavailable, None),
            (Fault.CUT, BackendUnavailable, BackendProtocolError),
            (Fault.RESET, BackendUnavailable, BackendProtocolError),
            (Fault.GARBAGE, BackendProtocolError, BackendProtocolError),
            (Fault.NOT_OBJECT, BackendProtocolError, BackendProtocolError),
            (Fault.ERROR_LINE, BackendFailed, BackendFailed),
            (Fault.NO_DONE, EndedEarly, EndedEarly),
        ],
    )
    async def test_every_end_has_its_error(
        self,
        ollama: FakeOllama,
        backend: OllamaBackend,
        fault: Fault,
        early: type[BackendError],
        late: type[BackendError] | None,
    ) -> None:
        """Each broken end, at once and after two words, is an error of its own kind; and the next call works."""
        ollama.plan(Plan(fault=fault))
        seen, problem = await failing(backend, ask())
        assert (seen, type(problem), problem.before_first_byte) == ("", early, True)
        if late is not None:
            ollama.plan(Plan(fault=fault, after=2))
            seen, problem = await failing(backend, ask())
            assert (seen, type(problem), problem.before_first_byte) == ("Hello there", late, False)
        assert text(await collect(backend, ask())) == "Hello there."

    @pytest.mark.parametrize(("after", "seen"), [(0, ""), (1, "Hello")])
    async def test_silence_is_bounded(self, ollama: FakeOllama, after: int, seen: str) -> None:
        """Silence ends a call: before the first byte by the one limit, after it by the other; upstream is closed."""
        limits = Timeouts(first_byte=0.2, stall=0.2)
        backend = OllamaBackend(ollama.url, timeouts=limits)
        ollama.plan(Plan(fault=Fault.SILENCE, after=after))
        got, problem = await failing(backend, ask())
        assert (got, type(problem), problem.before_first_byte) == (seen, BackendStalled, not after)
        await backend.aclose()
        await eventually(lambda: ollama.aborted == 1)

    async def test_a_short_stall_limit_does_not_cut_the_wait_for_the_first_byte(self, ollama: FakeOllama) -> None:
        """Loading and the prompt may take longer than a pause within the answer."""
        backend = OllamaBackend(ollama.url, timeouts=Timeouts(first_byte=20, stall=0.2))
        ollama.plan(Plan(prompt=0.5))
        assert text(await collect(backend, ask())) == "Hello there."
        await backend.aclose()

    async def test_nobody_there(self) -> None:
        """A refused connection and a name that does not exist are unavailability, at once."""
        for url in ("http://127.0.0.1:1", "http://no-such-host.invalid:11434"):
            backend = OllamaBackend(url)
            _, problem = await failing(backend, ask())
            assert type(problem) is BackendUnavailable
            with pytest.raises(BackendUnavailable):
                await backend.ready("gemma3n")
            await backend.aclose()


class TestAbort:
    async def test_closing_the_stream_closes_upstream(self, ollama: FakeOllama, backend: OllamaBackend) -> None:
        """At the next token Ollama sees it."""
        ollama.plan(Plan(words=["w "] * 500, pace=0.01))
        stream: Any = backend.chat(ask())
        await anext(stream)
        await stream.aclose()
        await eventually(lambda: ollama.aborted == 1 and ollama.running == 0)

    async def test_cancelling_the_task_closes_upstream(self, ollama: FakeOllama, backend: OllamaBackend) -> None:
        """Also while it waits for the first byte, where Ollama finishes the prompt first."""
        ollama.plan(Plan(words=["w "] * 500, pace=0.01, prompt=0.3))
        with anyio.move_on_after(0.05):
            await collect(backend, ask())
        assert ollama.running == 1
        await eventually(lambda: ollama.aborted == 1 and ollama.running == 0)
        assert text(await collect(backend, ask())) == "Hello there."
