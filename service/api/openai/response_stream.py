"""A run's events as the event stream of the Responses API. A small machine: `feed` takes events, gives SSE bytes."""

from __future__ import annotations

from typing import Any

from service.api.openai import response_objects as objects
from service.backends.base import ToolCall
from service.runs.spec import RunSpec
from service.store.runs import Event


class ResponseStream:
    """Writes one response. Sequence numbers count from 0, items are opened before and closed after their deltas."""

    def __init__(self, spec: RunSpec, run_id: str, created_at: float) -> None:
        self._spec = spec
        self._run_id = run_id
        self._created_at = created_at
        self._mine = {tool.name for tool in spec.client_tools}
        self._number = 0
        self._out: list[bytes] = []
        self._items: list[dict[str, Any]] = []
        self._open: str | None = None
        """Kind of the item in progress, `reasoning` or `message`; it is the last of `_items`."""
        self._texts: list[str] = []
        self._step = 0
        self._calls: dict[str, tuple[int, ToolCall]] = {}

    def begin(self) -> bytes:
        """The first two events."""
        response = self._response("in_progress")
        self._emit("response.created", response=response)
        self._emit("response.in_progress", response=response)
        return self._flush()

    def feed(self, event: Event) -> bytes:
        """What one event of the run adds."""
        handler = getattr(self, "_" + event.type.replace(".", "_"), None)
        if handler is not None:
            handler(event)
        return self._flush()

    def fail(self, message: str) -> bytes:
        """The last event when the stream has to end without the run's own end."""
        response = self._response("failed")
        response["error"] = {"code": "server_error", "message": message}
        self._emit("response.failed", response=response)
        return self._flush()

    def _step_started(self, event: Event) -> None:
        self._step = event.data["step"]

    def _thinking_delta(self, event: Event) -> None:
        index = self._opened("reasoning")
        self._texts.append(event.data["text"])
        self._emit(
            "response.reasoning_text.delta",
            item_id=self._items[index]["id"],
            output_index=index,
            content_index=0,
            delta=event.data["text"],
        )

    def _text_delta(self, event: Event) -> None:
        index = self._opened("message")
        self._texts.append(event.data["text"])
        self._emit(
            "response.output_text.delta",
            item_id=self._items[index]["id"],
            output_index=index,
            content_index=0,
            delta=event.data["text"],
            logprobs=[],
        )

    def _step_completed(self, event: Event) -> None:
        self._close()
        for each in event.data["tool_calls"]:
            call = ToolCall(each["id"], each["name"], each["arguments"])
            if call.name in self._mine:
                self._function_call(call)

    def _tool_started(self, event: Event) -> None:
        data = event.data
        call = ToolCall(data["id"], data["name"], data["arguments"])
        item = objects.server_item(call, None, "in_progress")
        index = self._add(item)
        self._calls[call.id] = (index, call)
        self._emit("response.mcp_call.in_progress", item_id=item["id"], output_index=index)
        self._emit("response.mcp_call_arguments.done", item_id=item["id"], output_index=index, arguments=call.arguments)

    def _tool_completed(self, event: Event) -> None:
        known = self._calls.pop(event.data["id"], None)
        if known is None:
            return
        index, call = known
        good = bool(event.data["ok"])
        item = objects.server_item(call, event.data["content"], "completed" if good else "failed")
        self._items[index] = item
        kind = "response.mcp_call.completed" if good else "response.mcp_call.failed"
        self._emit(kind, item_id=item["id"], output_index=index)
        self._emit("response.output_item.done", output_index=index, item=item)

    def _run_ended(self, event: Event) -> None:
        self._close("incomplete")
        response = objects.ended_response(
            self._spec, self._run_id, self._created_at, event.at, event.data["outcome"], event.data, self._items
        )
        # The wire has no event for a cancelled response; its status says so.
        kind = response["status"] if response["status"] in ("completed", "incomplete", "failed") else "incomplete"
        self._emit(f"response.{kind}", response=response)

    def _function_call(self, call: ToolCall) -> None:
        index = self._add(objects.function_item(call, "in_progress"))
        item = objects.function_item(call)
        place = {"item_id": item["id"], "output_index": index}
        self._emit("response.function_call_arguments.delta", **place, delta=call.arguments)
        self._emit("response.function_call_arguments.done", **place, name=call.name, arguments=call.arguments)
        self._items[index] = item
        self._emit("response.output_item.done", output_index=index, item=item)

    def _opened(self, kind: str) -> int:
        if self._open == kind:
            return len(self._items) - 1
        self._close()
        make = objects.message_item if kind == "message" else objects.reasoning_item
        index = self._add(make(self._run_id, self._step, None, "in_progress"))
        self._open, self._texts = kind, []
        part = objects.text_part("") if kind == "message" else {"type": "reasoning_text", "text": ""}
        self._part("added", index, part)
        return index

    def _close(self, status: str = "completed") -> None:
        if self._open is None:
            return
        index, text = len(self._items) - 1, "".join(self._texts)
        place = {"item_id": self._items[index]["id"], "output_index": index, "content_index": 0}
        if self._open == "message":
            self._emit("response.output_text.done", **place, text=text, logprobs=[])
            self._part("done", index, objects.text_part(text))
            item = objects.message_item(self._run_id, self._step, text, status)
        else:
            self._emit("response.reasoning_text.done", **place, text=text)
            self._part("done", index, {"type": "reasoning_text", "text": text})
            item = objects.reasoning_item(self._run_id, self._step, text, status)
        self._items[index] = item
        self._emit("response.output_item.done", output_index=index, item=item)
        self._open = None

    def _part(self, what: str, index: int, part: dict[str, Any]) -> None:
        item = self._items[index]["id"]
        self._emit(f"response.content_part.{what}", item_id=item, output_index=index, content_index=0, part=part)

    def _add(self, item: dict[str, Any]) -> int:
        self._items.append(item)
        index = len(self._items) - 1
        self._emit("response.output_item.added", output_index=index, item=item)
        return index

    def _response(self, status: str) -> dict[str, Any]:
        return objects.response_object(
            self._spec, self._run_id, self._created_at, status=status, output=list(self._items)
        )

    def _emit(self, kind: str, **fields: Any) -> None:
        self._out.append(objects.sse(kind, self._number, fields))
        self._number += 1

    def _flush(self) -> bytes:
        out, self._out = self._out, []
        return b"".join(out)
