"""`/v1/embeddings`."""

from __future__ import annotations

import base64
import struct
from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter
from fastapi.responses import JSONResponse

from service.api.access import Arrival, Chatter
from service.api.body import StrictRoute
from service.api.documented import ERRORS
from service.api.openai.convert import refuse_unknown
from service.api.openai.schemas import EmbeddingCreate
from service.api.parts import PartsOf

router = APIRouter(prefix="/v1", tags=["openai"], route_class=StrictRoute, responses=ERRORS)


@router.post("/embeddings", response_model=dict[str, Any])
async def create_embeddings(
    body: EmbeddingCreate, parts: PartsOf, principal: Chatter, arrival: Arrival
) -> JSONResponse:
    """Vectors for texts, in their order."""
    refuse_unknown(body.model_extra)
    inputs = [body.input] if isinstance(body.input, str) else body.input
    hold = parts.admission.admit(principal, arrival)
    tokens = 0
    try:
        found = await parts.calls.embed(body.model, inputs, arrival)
        tokens = found.prompt_tokens
    finally:
        hold.leave(tokens)
    packed = body.encoding_format == "base64"
    data = [
        {"object": "embedding", "index": index, "embedding": _packed(vector) if packed else list(vector)}
        for index, vector in enumerate(found.vectors)
    ]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return JSONResponse({"object": "list", "data": data, "model": body.model, "usage": usage})


def _packed(vector: Sequence[float]) -> str:
    """Little-endian 32-bit floats in base64, as the `openai` client unpacks them."""
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
