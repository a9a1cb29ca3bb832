"""What came before: the conversation of a run's session, and a run's own log when another process goes on with it."""

from __future__ import annotations

from typing import Any

from service.backends.base import Message
from service.runs import features
from service.runs.spec import RunSpec, message_from_json
from service.runs.state import RunState
from service.store.runs import RunRow, RunStore


async def history(store: RunStore, row: RunRow, spec: RunSpec) -> tuple[list[Message], bool]:
    """The messages before this run's own, and whether it asks again what the session's last run was asked."""
    if "previous" in row.request:
        return [message_from_json(each) for each in row.request["previous"]], False
    messages: list[Message] = []
    last: dict[str, Any] | None = None
    for request, summary in await store.history(row.session_id):
        last = request
        messages += [message_from_json(each) for each in request.get("messages", [])]
        messages += [message_from_json(each) for each in (summary or {}).get("messages", [])]
    return _answerable(messages), features.same_question(spec, last)


async def replay(store: RunStore, run_id: str, state: RunState) -> None:
    """Bring `state` to where the run's log ends."""
    after = 0
    while events := await store.events(run_id, after):
        for event in events:
            state.apply(event.type, event.data)
        after = events[-1].seq


def _answerable(messages: list[Message]) -> list[Message]:
    """A history in which every tool call has its result, as models and servers expect."""
    answered = {message.tool_call_id for message in messages if message.role == "tool"}
    kept: list[Message] = []
    for message in messages:
        open_calls = [call for call in message.tool_calls if call.id not in answered]
        kept.append(message)
        kept.extend(
            Message("tool", "The call was not made.", tool_call_id=call.id, name=call.name) for call in open_calls
        )
    return kept
