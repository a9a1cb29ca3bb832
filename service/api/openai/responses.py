"""`/v1/responses`: a run behind OpenAI's newer wire, with the tool loop on the server and a stored conversation."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from service.api.access import Arrival, Chatter
from service.api.body import StrictRoute
from service.api.documented import ERRORS
from service.api.openai import response_objects as objects
from service.api.openai.response_input import spec_of
from service.api.openai.response_stream import ResponseStream
from service.api.openai.schemas import ResponseCreate
from service.api.openai.source import failure_of
from service.api.parts import Parts, PartsOf
from service.api.runs import RUN_ID, result_or_gone
from service.api.session import belongs_to
from service.api.sse import EventStream
from service.auth import Principal
from service.backends.base import Message
from service.errors import ApiError, Conflict, NotFound
from service.runs.reader import Interrupted
from service.runs.spec import RunSpec, from_json, message_from_json
from service.store.runs import Event, RunRow

router = APIRouter(prefix="/v1", tags=["openai"], route_class=StrictRoute, responses=ERRORS)

_RESPONSE_ID = re.compile(r"resp_[0-9a-f]{29}")
_FAILED_BEFORE_IT_BEGAN = 0


@router.post(
    "/responses",
    response_model=dict[str, Any],
    responses={200: {"description": "A response, or its events", "content": {"text/event-stream": {}}}},
)
async def create_response(
    body: ResponseCreate, request: Request, parts: PartsOf, principal: Chatter, arrival: Arrival
) -> Response:
    """Answer an input; `previous_response_id` goes on from an earlier response."""
    spec = spec_of(body, parts.agents, parts.settings)
    previous = await _previous(request, parts, principal, body.previous_response_id)
    hold = parts.admission.admit(principal, arrival)
    created = await parts.runner.create(spec, principal, hold=hold, previous=previous)
    belongs_to(request, created.session_id, created.run_id)
    cancels = not spec.survives_its_client
    if body.stream:
        row = await parts.store.runs.get(created.run_id)
        assert row is not None

        async def gone() -> None:
            await parts.runner.stop(created.run_id, "client_gone")

        stream = _events(parts, spec, row)
        return EventStream(stream, parts.metrics, gone=gone if cancels else None)
    if spec.background:
        row = await parts.store.runs.get(created.run_id)
        assert row is not None
        return JSONResponse(objects.stored_response(spec, row))
    ended = await result_or_gone(parts, request, created.run_id, cancels=cancels)
    if ended is None:
        return Response(status_code=499)
    summary = ended.summary or {}
    if summary.get("error") and summary.get("steps", 0) == _FAILED_BEFORE_IT_BEGAN:
        raise failure_of(summary["error"]["code"], summary["error"]["message"])
    return JSONResponse(objects.stored_response(spec, ended))


async def _events(parts: Parts, spec: RunSpec, row: RunRow) -> AsyncGenerator[bytes]:
    writer = ResponseStream(spec, row.id, row.created_at)
    yield writer.begin()
    try:
        async for events in parts.reader.follow(row.id):
            out = b"".join(_fed(writer, events))
            if out:
                yield out
    except Interrupted:
        yield writer.fail("The service is shutting down; a background response goes on. Ask for it again.")
    except ApiError as error:
        yield writer.fail(error.message)


def _fed(writer: ResponseStream, events: list[Event]) -> list[bytes]:
    return [writer.feed(event) for event in events]


@router.get("/responses/{response_id}", response_model=dict[str, Any])
async def get_response(response_id: str, request: Request, parts: PartsOf, principal: Chatter) -> JSONResponse:
    """A stored response."""
    row = await _owned(request, parts, principal, response_id)
    return JSONResponse(objects.stored_response(_spec(row), row))


@router.post("/responses/{response_id}/cancel", response_model=dict[str, Any])
async def cancel_response(response_id: str, request: Request, parts: PartsOf, principal: Chatter) -> JSONResponse:
    """Cancel a background response; one that has ended stays as it ended."""
    row = await _owned(request, parts, principal, response_id)
    if not row.ended:
        await parts.runner.stop(row.id, "cancelled")
        row = await parts.reader.result(row.id)
    return JSONResponse(objects.stored_response(_spec(row), row))


@router.delete("/responses/{response_id}", response_model=dict[str, Any])
async def delete_response(response_id: str, request: Request, parts: PartsOf, principal: Chatter) -> JSONResponse:
    """Delete a stored response."""
    row = await _owned(request, parts, principal, response_id)
    if not row.ended:
        raise Conflict("The response is in progress. Cancel it first.", code="run_active")
    await parts.store.runs.delete_run(row.id)
    return JSONResponse({"id": response_id, "object": "response", "deleted": True})


async def _previous(request: Request, parts: Parts, principal: Principal, response_id: str | None) -> list[Message]:
    if response_id is None:
        return []
    row = await _owned(request, parts, principal, response_id, param="previous_response_id")
    if not row.ended:
        raise Conflict("The previous response is in progress. Wait for its end.", code="run_active")
    kept = [
        *row.request.get("previous", []),
        *row.request.get("messages", []),
        *(row.summary or {}).get("messages", []),
    ]
    return [message_from_json(each) for each in kept]


async def _owned(
    request: Request, parts: Parts, principal: Principal, response_id: str, param: str = "response_id"
) -> RunRow:
    run_id = objects.run_id_of(response_id)
    row = None
    if _RESPONSE_ID.fullmatch(response_id) and RUN_ID.fullmatch(run_id):
        row = await parts.store.runs.get(run_id, principal.sees)
    if row is None:
        raise NotFound(f"Response with id '{response_id[:64]}' not found.", code="not_found", param=param)
    belongs_to(request, row.session_id, row.id)
    return row


def _spec(row: RunRow) -> RunSpec:
    return from_json({key: value for key, value in row.request.items() if key != "previous"})
