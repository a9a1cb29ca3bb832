"""What a relay costs at least, with the same framework and HTTP client: bytes in, bytes out, nothing parsed or counted.

`uvicorn --factory benchmarks.service.relay:create`. `UPSTREAM` is the address; `GATE` the number of requests that may
be at the upstream at a time (0: no gate), for the effect of a semaphore in front of httpx's pool.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncGenerator

import httpx
from fastapi import FastAPI, Request, Response
from fastapi.responses import StreamingResponse


def create() -> FastAPI:
    """The application."""
    places = int(os.environ.get("GATE", "0"))
    gate = asyncio.Semaphore(places) if places else contextlib.nullcontext()
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    client = httpx.AsyncClient(base_url=os.environ["UPSTREAM"], limits=limits, timeout=600, trust_env=False)
    app = FastAPI()

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.post("/v1/chat/completions")
    async def relay(request: Request) -> Response:
        body = await request.body()
        headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
        sent = client.build_request("POST", "/v1/chat/completions", content=body, headers=headers)
        if b'"stream": true' not in body:
            async with gate:
                answer = await client.send(sent)
            return Response(answer.content, answer.status_code, media_type="application/json")

        async def chunks() -> AsyncGenerator[bytes]:
            async with gate:
                upstream = await client.send(sent, stream=True)
                try:
                    async for chunk in upstream.aiter_raw():
                        yield chunk
                finally:
                    await upstream.aclose()

        return StreamingResponse(chunks(), media_type="text/event-stream")

    return app
