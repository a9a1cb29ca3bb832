"""OpenAI's wire: chat completions, responses, models, embeddings.

A model's own name is a relay to the backend with our admission, metrics and cancellation; `agent/<name>` runs the
agent loop with its server tools. Tools that the client sends are returned to the client in both.
"""

from fastapi import APIRouter

from service.api.openai import chat, embeddings, models, responses

router = APIRouter()
for part in (chat, responses, models, embeddings):
    router.include_router(part.router)
