"""`/v1/models`: what the backend has, and the agents as `agent/<name>`."""

from __future__ import annotations

from fastapi import APIRouter

from service.agents import PREFIX
from service.api.access import Anyone
from service.api.documented import ERRORS
from service.api.openai.schemas import ModelList, ModelOut
from service.api.parts import Parts, PartsOf
from service.errors import NotFound

router = APIRouter(prefix="/v1", tags=["openai"], responses=ERRORS)


@router.get("/models")
async def list_models(parts: PartsOf, principal: Anyone) -> ModelList:
    """Every model and agent that a request can name."""
    return ModelList(data=await _all(parts))


@router.get("/models/{name:path}")
async def get_model(name: str, parts: PartsOf, principal: Anyone) -> ModelOut:
    """One of them."""
    for model in await _all(parts):
        if name in (model.id, model.id.removesuffix(":latest")):
            return model
    raise NotFound(f"The model '{name[:100]}' does not exist.", code="model_not_found", param="model")


async def _all(parts: Parts) -> list[ModelOut]:
    models = await parts.backend.models()
    found = [ModelOut(id=model.name, owned_by=parts.backend.name) for model in models]
    agents = [ModelOut(id=PREFIX + name, owned_by="agent-loop") for name in parts.agents.names()]
    return found + agents
