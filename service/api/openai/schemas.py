"""The request bodies of OpenAI's wire as far as they are typed; what is nested is read by `convert`.

Fields in the second half of each are accepted and have no effect here, as with any server that lacks the feature;
the ones that would change the answer are refused when they ask for it.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

MAX_INT = 2**31 - 1


class Tolerant(BaseModel):
    """Unknown fields are kept, to be refused by name. Strict, as the real API: "0.5" and true are no numbers."""

    model_config = ConfigDict(extra="allow", strict=True)


class StreamOptions(BaseModel):
    """Of a stream."""

    model_config = ConfigDict(strict=True)

    include_usage: bool = False
    include_obfuscation: bool | None = None


class ChatCompletionCreate(Tolerant):
    """`POST /v1/chat/completions`."""

    model: str = Field(min_length=1, max_length=256)
    messages: list[Any] = Field(min_length=1)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    tools: list[Any] | None = None
    tool_choice: str | dict[str, Any] | None = None
    response_format: dict[str, Any] | None = None
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, ge=0, le=1)
    top_k: int | None = Field(default=None, ge=0, le=MAX_INT)
    seed: int | None = Field(default=None, ge=-(2**63), le=2**63 - 1)
    stop: str | list[str] | None = None
    max_tokens: int | None = Field(default=None, ge=1, le=MAX_INT)
    max_completion_tokens: int | None = Field(default=None, ge=1, le=MAX_INT)
    presence_penalty: float | None = Field(default=None, ge=-2, le=2)
    frequency_penalty: float | None = Field(default=None, ge=-2, le=2)
    think: bool | None = None
    reasoning_effort: str | None = None
    n: int | None = Field(default=None, ge=1, le=1, description="One answer a request.")
    modalities: list[Literal["text", "audio"]] | None = None
    functions: list[Any] | None = None
    function_call: Any = None
    metadata: dict[str, str] | None = None
    # Accepted, without effect
    audio: Any = None
    logit_bias: dict[str, float] | None = None
    logprobs: bool | None = None
    moderation: Any = None
    parallel_tool_calls: bool | None = None
    prediction: Any = None
    prompt_cache_key: str | None = None
    prompt_cache_options: Any = None
    prompt_cache_retention: str | None = None
    safety_identifier: str | None = None
    service_tier: str | None = None
    store: bool | None = None
    top_logprobs: int | None = Field(default=None, ge=0, le=20)
    user: str | None = None
    verbosity: str | None = None
    web_search_options: Any = None


class ResponseCreate(Tolerant):
    """`POST /v1/responses`."""

    model: str = Field(min_length=1, max_length=256)
    input: str | list[Any]
    instructions: str | None = None
    stream: bool | None = None
    tools: list[Any] | None = None
    tool_choice: str | dict[str, Any] | None = None
    text: dict[str, Any] | None = None
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, ge=0, le=1)
    max_output_tokens: int | None = Field(default=None, ge=1, le=MAX_INT)
    max_tool_calls: int | None = Field(default=None, ge=0, le=MAX_INT)
    previous_response_id: str | None = Field(default=None, max_length=64)
    background: bool | None = None
    metadata: dict[str, str] | None = None
    parallel_tool_calls: bool | None = None
    reasoning: dict[str, Any] | None = None
    service_tier: str | None = None
    store: bool | None = None
    top_logprobs: int | None = Field(default=None, ge=0, le=20)
    truncation: Literal["auto", "disabled"] | None = None
    user: str | None = None
    prompt_cache_key: str | None = None
    safety_identifier: str | None = None
    # Accepted, without effect
    access_programs: Any = None
    background_options: Any = None
    context_management: Any = None
    conversation: Any = None
    image: Any = None
    include: list[str] | None = None
    moderation: Any = None
    presence_penalty: float | None = Field(default=None, ge=-2, le=2)
    frequency_penalty: float | None = Field(default=None, ge=-2, le=2)
    prompt: Any = None
    prompt_cache_options: Any = None
    prompt_cache_retention: str | None = None
    stream_options: dict[str, Any] | None = None


class EmbeddingCreate(Tolerant):
    """`POST /v1/embeddings`."""

    model: str = Field(min_length=1, max_length=256)
    input: str | list[str] = Field(description="A text, or up to 2048 texts.")
    encoding_format: Literal["float", "base64"] | None = None
    user: str | None = None

    @field_validator("input")
    @classmethod
    def _some(cls, value: str | list[str]) -> str | list[str]:
        if not value or (isinstance(value, list) and (len(value) > 2048 or not all(value))):
            raise ValueError("is empty, has an empty text, or more than 2048 texts")
        return value


class ModelOut(BaseModel):
    """A model or an agent."""

    id: str
    object: Literal["model"] = "model"
    created: int = 0
    owned_by: str


class ModelList(BaseModel):
    """All of them."""

    object: Literal["list"] = "list"
    data: list[ModelOut]
