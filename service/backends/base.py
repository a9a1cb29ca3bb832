"""The seam between the agent loop and whatever runs a model: one small asynchronous protocol.

`Backend` is the protocol, `ChatRequest` goes in, a stream of `Delta` comes out and ends with exactly one `Finish`.
Everything that can go wrong is one of these:

    BackendError
    ├── BackendUnavailable    nobody answers: refused, reset, DNS, circuit open                  retry, fall back
    ├── BackendOverloaded     it answers "not now" (503, 429 of the upstream)                    retry, fall back
    ├── BackendStalled        no byte for longer than the read timeout
    ├── BackendProtocolError  malformed or cut reply, also a clean end without `done`
    ├── BackendFailed         the model's process reported an error of its own
    └── BackendRejected       the request cannot work as it stands: repeating it is useless
        ├── ModelNotFound     no such model there
        └── ContextTooLong    the prompt does not fit the model's context; nothing was cut silently

Division of work. A backend maps wire and errors, nothing else. Retry, fallback and the circuit breaker are a backend
that wraps others (`resilience.py`) and act only while `before_first_byte` holds. Admission (who may call now) sits
in front, in `service.admission`. Tools for models that lack them are the caller's: `service.runs.protocol` turns
tools into a `format` schema for a model whose `ModelInfo.tools` is False, so a backend never emulates tools.

Who counts what: `observed.py` counts each call (duration, chunks, tokens, context, aborts); `service.model_calls`
counts the time from a request's arrival to its first token, and `service.admission` places and permits.

`service.backends.create(settings, metrics)` returns the configured `Backend`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

Role = Literal["system", "user", "assistant", "tool"]
FinishReason = Literal["stop", "length", "tool_calls"]
JsonSchema = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call that the model asks for. `arguments` is JSON text exactly as the model gave it, perhaps invalid."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a conversation; `content` is text, "" where there is none."""

    role: Role
    content: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    """Of an assistant message."""
    tool_call_id: str | None = None
    """Of a tool message: the call that it answers."""
    name: str | None = None
    """Of a tool message: the tool's name."""
    thinking: str | None = None
    images: tuple[str, ...] = ()
    """Base64 data without a `data:` prefix."""


@dataclass(frozen=True, slots=True)
class ToolSpec:
    """A tool as the model is told of it; `parameters` is a JSON schema of type object."""

    name: str
    description: str
    parameters: JsonSchema

    def as_function(self) -> dict[str, Any]:
        """The form of OpenAI's chat completions, which Ollama took over."""
        function = {"name": self.name, "description": self.description, "parameters": dict(self.parameters)}
        return {"type": "function", "function": function}


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to draw tokens. None: the model's own default, so never send it."""

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    seed: int | None = None
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    presence_penalty: float | None = None
    frequency_penalty: float | None = None


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """One model call."""

    model: str
    messages: Sequence[Message]
    tools: Sequence[ToolSpec] = ()
    """Only ever given to a model whose `ModelInfo.tools` is True."""
    sampling: Sampling = field(default_factory=Sampling)
    format: Literal["json"] | JsonSchema | None = None
    """Constrains the output to JSON, or to JSON of this schema."""
    think: bool | None = None


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one model call as the backend counts them, and its own timings in seconds where it tells them."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    load_seconds: float | None = None
    prompt_seconds: float | None = None
    decode_seconds: float | None = None
    context_tokens: int | None = None
    """Size of the context that this call ran in, for the share used."""

    @property
    def total_tokens(self) -> int:
        """Prompt and completion together."""
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True, slots=True)
class Finish:
    """The end of a model call; comes once, in the last delta."""

    reason: FinishReason
    usage: Usage = field(default_factory=Usage)


@dataclass(frozen=True, slots=True)
class Delta:
    """A piece of a reply. Several fields may be set at once; tool calls come complete, each exactly once."""

    text: str = ""
    thinking: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    finish: Finish | None = None


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """A model that the backend can serve now."""

    name: str
    """As a request names it."""
    digest: str = ""
    """`sha256:…` of its weights, "" if unknown."""
    context: int | None = None
    """Context in tokens that the backend will use for it."""
    tools: bool = False
    """Native tool calls."""
    thinking: bool = False
    vision: bool = False
    embeddings: bool = False


@dataclass(frozen=True, slots=True)
class Embeddings:
    """Vectors in the order of the inputs, all of one length, and the tokens read."""

    vectors: Sequence[Sequence[float]]
    prompt_tokens: int = 0


class BackendError(Exception):
    """Something went wrong with the model's side.

    `message` is one line for a person: problem, value, place. `before_first_byte` is True while nothing of the reply
    has been handed on, so that a retry cannot repeat output. `retry_after` is in seconds, None if unknown.
    """

    code: ClassVar[str] = "backend_error"

    def __init__(self, message: str, *, before_first_byte: bool = True, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.before_first_byte = before_first_byte
        self.retry_after = retry_after


class BackendUnavailable(BackendError):
    """Nobody answers there."""

    code = "backend_unavailable"


class BackendOverloaded(BackendError):
    """It refuses at the moment: asking again may help."""

    code = "backend_overloaded"


class BackendStalled(BackendError):
    """It went silent."""

    code = "backend_stalled"


class BackendProtocolError(BackendError):
    """Its reply is malformed, or was cut off."""

    code = "backend_protocol_error"


class BackendFailed(BackendError):
    """It reported an error of its own (such as a died runner)."""

    code = "backend_failed"


class BackendRejected(BackendError):
    """It will never take this request; `status` 4xx is what a client should see."""

    code = "invalid_request"
    status: ClassVar[int] = 400


class ModelNotFound(BackendRejected):
    """It has no model of that name."""

    code = "model_not_found"
    status = 404


class ContextTooLong(BackendRejected):
    """The prompt is longer than the context."""

    code = "context_length_exceeded"


@runtime_checkable
class Backend(Protocol):
    """What runs models. Instances belong to one event loop; every method may be called concurrently."""

    @property
    def name(self) -> str:
        """`ollama`, `llamacpp`, `openai` or `scripted`: the provider in metrics."""
        ...

    @property
    def parallelism(self) -> int:
        """How many chats it runs at a time (>= 1): the size of the semaphore in front of it."""
        ...

    @property
    def aborts_prompt(self) -> bool:
        """True: closing a chat before its first byte ends the work there at once.

        False (Ollama): prompt processing goes on, so the caller keeps the stream open until the first delta, then
        closes it, and holds the permit meanwhile (decision 21). `service.admission` does that.
        """
        ...

    async def models(self) -> Sequence[ModelInfo]:
        """The models it can serve now. Raises BackendError."""
        ...

    async def ready(self, model: str) -> None:
        """Return if it can serve `model` now; else raise BackendUnavailable or ModelNotFound, cheaply."""
        ...

    def chat(self, request: ChatRequest) -> AsyncIterator[Delta]:
        """Run one model call: an asynchronous *generator*, so that `aclose()` ends the call upstream at once.

        Ends after the delta with `finish`, or raises a BackendError. Empty deltas are not yielded.
        Cancelling the task that waits in it closes the upstream connection too.
        """
        ...

    async def embed(self, model: str, inputs: Sequence[str]) -> Embeddings:
        """Embed each input. Raises BackendRejected if it cannot."""
        ...

    async def aclose(self) -> None:
        """Close pools and threads."""
        ...
