"""The `openai` client's responses: the server's loop, events in order, conversations, deletion."""

from __future__ import annotations

from pathlib import Path

import openai
import pytest

from service.backends.scripted import ScriptedBackend
from tests.service.openai.clients import FLAT_WEATHER, SCRIPT, Shared, client_of, post

pytestmark = [pytest.mark.anyio, pytest.mark.in_image, pytest.mark.long]


class TestResponses:
    async def test_server_side_loop(self, shared: Shared) -> None:
        """An agent's tools run on the server: the response has the call with its result, and the answer."""
        client = shared[0]
        response = await client.responses.create(model="agent/default", input="the sum?")
        assert response.status == "completed"
        assert [item.type for item in response.output] == ["mcp_call", "message"]
        assert response.output[0].output == "42"
        assert response.output_text == "It is 42."
        assert response.usage.total_tokens > 0
        again = await client.responses.retrieve(response.id)
        assert again.output_text == response.output_text

    async def test_required_fields_are_never_null(self, shared: Shared) -> None:
        """Fields that strict clients take for required have values."""
        server = shared[1]
        answer = (await post(server, "/v1/responses", {"model": "scripted", "input": "Hi"})).json()
        for name in (
            *("presence_penalty", "frequency_penalty", "top_logprobs", "temperature", "top_p", "tool_choice"),
            *("truncation", "background", "service_tier", "tools", "text", "store", "parallel_tool_calls"),
        ):
            assert answer[name] is not None, name

    async def test_stream_events_in_order(self, shared: Shared) -> None:
        """Events open and close every item, count from 0, and end with the whole response."""
        client = shared[0]
        stream = await client.responses.create(model="agent/default", input="the sum?", stream=True)
        events = [event async for event in stream]
        kinds = [event.type for event in events]
        assert [event.sequence_number for event in events] == list(range(len(events)))
        assert kinds[:2] == ["response.created", "response.in_progress"]
        assert kinds[-1] == "response.completed"
        assert kinds.count("response.output_item.added") == kinds.count("response.output_item.done") == 2
        assert "response.mcp_call.completed" in kinds
        text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
        assert text == events[-1].response.output_text == "It is 42."
        stored = await client.responses.retrieve(events[-1].response.id)
        assert stored.output == events[-1].response.output

    async def test_conversation_goes_on(self, tmp_path: Path) -> None:
        """previous_response_id brings the earlier messages, with a function's output too."""
        backend = ScriptedBackend(SCRIPT)
        async with client_of(tmp_path, backend) as (client, _):
            first = await client.responses.create(model="scripted", input="weather?", tools=[FLAT_WEATHER])
            call = first.output[0]
            assert (call.type, call.name) == ("function_call", "get_weather")
            second = await client.responses.create(
                model="scripted",
                previous_response_id=first.id,
                tools=[FLAT_WEATHER],
                input=[{"type": "function_call_output", "call_id": call.call_id, "output": "sunny"}],
            )
            assert second.output_text == "It is sunny in Rome."
            assert [m.role for m in backend.requests[-1].messages] == ["user", "assistant", "tool"]

    async def test_failure_and_limits(self, shared: Shared) -> None:
        """No model at all is a status; a failure in mid-stream is response.failed; a cut answer is incomplete."""
        client = shared[0]
        with pytest.raises(openai.InternalServerError):
            await client.responses.create(model="scripted", input="down")
        stream = await client.responses.create(model="scripted", input="break", stream=True)
        assert [event.type async for event in stream][-1] == "response.failed"
        cut = await client.responses.create(model="scripted", input="Hi", max_output_tokens=1)
        assert (cut.status, cut.incomplete_details.reason) == ("incomplete", "max_output_tokens")

    async def test_deletion(self, shared: Shared) -> None:
        """A deleted response is gone."""
        client = shared[0]
        response = await client.responses.create(model="scripted", input="Hi")
        await client.responses.delete(response.id)
        with pytest.raises(openai.NotFoundError):
            await client.responses.retrieve(response.id)
