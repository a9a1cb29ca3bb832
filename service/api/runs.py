"""`/v1/runs` and `/v1/sessions`: durable runs in four modes, their event logs, cancellation, feedback.

|                     | `stream: false`                         | `stream: true`                                |
| ------------------- | --------------------------------------- | --------------------------------------------- |
| `background: false` | answers when the run has ended          | streams; the client's leaving cancels the run |
| `background: true`  | answers 202 at once; poll or read events | streams; the run goes on without its reader   |

`on_disconnect` overrides what the client's leaving means.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import re
from typing import Annotated

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import JSONResponse

from service.api.access import Arrival, RunOwner
from service.api.body import StrictRoute
from service.api.documented import ERRORS
from service.api.parts import Parts, PartsOf
from service.api.run_conversion import event_out, run_out, spec_of
from service.api.run_schemas import (
    Deleted,
    EventPage,
    FeedbackIn,
    RunCreate,
    RunOut,
    RunPage,
    SessionOut,
)
from service.api.run_stream import event_stream
from service.api.session import SESSION_ID, belongs_to
from service.api.sse import until_gone
from service.auth import Principal
from service.errors import Conflict, InvalidRequest, NotFound, Unavailable
from service.runs.live import Created
from service.runs.reader import Interrupted
from service.runs.spec import new_session_id
from service.store.runs import RunRow, SessionBusy
from service.telemetry import names

router = APIRouter(prefix="/v1", tags=["runs"], route_class=StrictRoute, responses=ERRORS)

RUN_ID = re.compile(r"run_[0-9a-f]{29}")
MAX_SEQ = 2**31 - 1

IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=255,
        pattern=r"^[\x21-\x7e]+$",
        description="The same key with the same body gives the same run, for 24 hours.",
    ),
]


@router.post(
    "/runs",
    response_model=RunOut,
    responses={
        200: {"description": "The ended run, or its event stream", "content": {"text/event-stream": {}}},
        202: {"model": RunOut, "description": "Accepted, in the background"},
    },
)
async def create_run(
    body: RunCreate,
    request: Request,
    parts: PartsOf,
    principal: RunOwner,
    arrival: Arrival,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Start a run."""
    spec = spec_of(body, parts.agents, parts.settings)
    if body.session_id is not None and not SESSION_ID.fullmatch(body.session_id):
        raise NotFound("No such session. Leave session_id out to begin one.", param="session_id")
    hold = parts.admission.admit(principal, arrival)
    created = await parts.runner.create(
        spec,
        principal,
        hold=hold,
        session_id=body.session_id,
        replace_active=body.on_active_run == "interrupt",
        idempotency_key=idempotency_key,
        fingerprint=_fingerprint(body) if idempotency_key else "",
    )
    belongs_to(request, created.session_id, created.run_id)
    headers = {"Idempotent-Replayed": "true"} if created.replayed else {}
    cancels = spec.on_disconnect == "cancel" and not created.replayed
    if body.stream:
        return event_stream(parts, created.run_id, 0, headers=headers, cancels=cancels)
    if body.background:
        row = await parts.store.runs.get(created.run_id)
        assert row is not None
        return JSONResponse(run_out(row).model_dump(mode="json"), 202, headers)
    return await _blocking(parts, request, created, headers, cancels=cancels)


async def _blocking(
    parts: Parts, request: Request, created: Created, headers: dict[str, str], *, cancels: bool
) -> Response:
    row = await result_or_gone(parts, request, created.run_id, cancels=cancels)
    if row is None:
        return Response(status_code=499)  # nobody reads it
    raise_if_never_began(row)
    return JSONResponse(run_out(row).model_dump(mode="json"), 200, headers)


async def result_or_gone(parts: Parts, request: Request, run_id: str, *, cancels: bool) -> RunRow | None:
    """The ended run, or None if the client left first (which cancels the run if `cancels`)."""
    waiting = asyncio.ensure_future(parts.reader.result(run_id))
    leaving = asyncio.ensure_future(until_gone(request.receive))
    try:
        await asyncio.wait([waiting, leaving], return_when=asyncio.FIRST_COMPLETED)
        if not waiting.done():
            if cancels:
                await parts.runner.stop(run_id, "client_gone")
            return None
        return waiting.result()
    except Interrupted:
        raise Unavailable(
            f"The service is shutting down; the run goes on: {run_id}. Ask for it again.",
            code="draining",
            retry_after=2.0,
        ) from None
    finally:
        waiting.cancel()
        leaving.cancel()
        await asyncio.gather(waiting, leaving, return_exceptions=True)


def raise_if_never_began(row: RunRow) -> None:
    """A run that found no model at all is answered as 503, so that clients and balancers try again."""
    error = (row.summary or {}).get("error") or {}
    steps = (row.summary or {}).get("steps", 0)
    if steps == 0 and error.get("code") in ("backend_unavailable", "backend_overloaded", "overloaded"):
        raise Unavailable(error["message"], code=error["code"], retry_after=2.0)


@router.get("/runs")
async def list_runs(
    request: Request,
    parts: PartsOf,
    principal: RunOwner,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    before: Annotated[str | None, Query(max_length=64, description="Id of the last run of the page before.")] = None,
    session_id: Annotated[str | None, Query(max_length=96)] = None,
    status: Annotated[str | None, Query(pattern="^(running|ended)$")] = None,
) -> RunPage:
    """Runs of this key, newest first."""
    if before is not None and await _mine(parts, principal, before) is None:
        raise NotFound("No such run.", code="run_not_found", param="before")
    if session_id is not None and not SESSION_ID.fullmatch(session_id):
        return RunPage(data=[], has_more=False)
    rows = await parts.store.runs.page(
        principal.sees, limit=limit + 1, before=before, session_id=session_id, status=status
    )
    if session_id is not None and rows:
        belongs_to(request, session_id)
    return RunPage(data=[run_out(row) for row in rows[:limit]], has_more=len(rows) > limit)


@router.get("/runs/{run_id}")
async def get_run(run_id: str, request: Request, parts: PartsOf, principal: RunOwner) -> RunOut:
    """A run as it stands."""
    return run_out(await _owned(request, parts, principal, run_id))


@router.get(
    "/runs/{run_id}/events",
    response_model=EventPage,
    responses={200: {"description": "Events", "content": {"text/event-stream": {}}}},
)
async def run_events(
    run_id: str,
    request: Request,
    parts: PartsOf,
    principal: RunOwner,
    after: Annotated[int, Query(ge=0, le=MAX_SEQ, description="Only events with a larger number.")] = 0,
    stream: bool = True,
    limit: Annotated[int, Query(ge=1, le=1000)] = 500,
    last_event_id: Annotated[str | None, Header(alias="Last-Event-ID", max_length=20)] = None,
) -> Response:
    """The run's log: as a stream to its end, or (`stream=false`) as a page. Reading never ends the run."""
    row = await _owned(request, parts, principal, run_id)
    if last_event_id:
        if not re.fullmatch(r"[0-9]{1,10}", last_event_id) or int(last_event_id) > MAX_SEQ:
            raise InvalidRequest(
                f"Last-Event-ID is no event number: {last_event_id[:20]!r}. Send the last 'id:' that you read.",
                param="Last-Event-ID",
            )
        after = int(last_event_id)
    if not stream:
        events = await parts.store.runs.events(run_id, after, limit + 1)
        page = EventPage(data=[event_out(each) for each in events[:limit]], has_more=len(events) > limit)
        return JSONResponse(page.model_dump(mode="json"))
    return event_stream(parts, row.id, after, cancels=False)


@router.post("/runs/{run_id}/cancel")
async def cancel_run(run_id: str, request: Request, parts: PartsOf, principal: RunOwner) -> RunOut:
    """Cancel a run; a run that has ended stays as it ended. Waits a few seconds for the end."""
    row = await _owned(request, parts, principal, run_id)
    if not row.ended:
        await parts.runner.stop(run_id, "cancelled")
        with contextlib.suppress(TimeoutError, Interrupted):
            async with asyncio.timeout(5.0):
                await parts.reader.result(run_id)
    return run_out(await _owned(request, parts, principal, run_id))


@router.post("/runs/{run_id}/feedback")
async def give_feedback(run_id: str, body: FeedbackIn, request: Request, parts: PartsOf, principal: RunOwner) -> RunOut:
    """Say whether an ended run's answer was good."""
    row = await _owned(request, parts, principal, run_id)
    if not row.ended:
        raise Conflict("The run has not ended yet. Give feedback on its answer.", code="run_active")
    thumbs = 1 if body.thumbs == "up" else -1
    await parts.store.runs.give_feedback(run_id, body.model_dump(exclude_none=True), thumbs)
    if (row.feedback or {}).get("thumbs") != body.thumbs:  # saying it twice is one opinion
        parts.metrics.inc(names.FEEDBACK, thumbs=body.thumbs)
    return run_out(await _owned(request, parts, principal, run_id))


@router.post("/sessions", status_code=201)
async def create_session(request: Request, parts: PartsOf, principal: RunOwner) -> SessionOut:
    """Begin an empty session."""
    session_id = new_session_id(parts.settings.variant)
    await parts.store.runs.add_session(session_id, principal.key_id, parts.settings.variant)
    belongs_to(request, session_id)
    return SessionOut(id=session_id, variant=parts.settings.variant)


@router.delete("/sessions/{session_id}")
async def delete_session(session_id: str, request: Request, parts: PartsOf, principal: RunOwner) -> Deleted:
    """Delete a session with all its runs and their events."""
    try:
        found = SESSION_ID.fullmatch(session_id) and await parts.store.runs.delete_session(session_id, principal.sees)
    except SessionBusy as busy:
        belongs_to(request, session_id)
        raise Conflict(f"The session has an active run: {busy.run_id}. Cancel it first.", code="session_busy") from None
    if not found:
        raise NotFound("No such session.", code="session_not_found")
    belongs_to(request, session_id)
    return Deleted(id=session_id)


async def _mine(parts: Parts, principal: Principal, run_id: str) -> RunRow | None:
    # Another key's run and one that never was look the same.
    return await parts.store.runs.get(run_id, principal.sees) if RUN_ID.fullmatch(run_id) else None


async def _owned(request: Request, parts: Parts, principal: Principal, run_id: str) -> RunRow:
    row = await _mine(parts, principal, run_id)
    if row is None:
        raise NotFound("No such run.", code="run_not_found", param="run_id")
    belongs_to(request, row.session_id, row.id)
    return row


def _fingerprint(body: RunCreate) -> str:
    text = json.dumps(body.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
