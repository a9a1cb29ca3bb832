"""llama.cpp inside this process (xllamacpp): a GGUF file and nothing else to install or start.

The library brings llama.cpp's own HTTP server. It listens on a random loopback port and answers only to a key made
here for each start, so nobody else on the machine can use it; we speak to it as to any OpenAI-compatible server.
Tried: closing the stream frees its slot at once, JSON schemas constrain the output, a prompt that is too long is an
error, an answer stops at the end of the context.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import anyio
import anyio.to_thread

from service.backends.base import (
    BackendFailed,
    BackendRejected,
    ChatRequest,
    Delta,
    Embeddings,
    ModelInfo,
    ModelNotFound,
)
from service.backends.openai import PROBE, OpenAIBackend
from service.backends.transport import Timeouts, Transport
from service.errors import StartupError


class LlamaCppBackend:
    """One GGUF file. It is loaded on the first use, which `/ready` is."""

    name = "llamacpp"
    aborts_prompt = True

    def __init__(
        self,
        path: Path,
        *,
        model: str | None = None,
        num_ctx: int = 4096,
        parallelism: int | None = None,
        threads: int | None = None,
        gpu_layers: int | None = None,
        timeouts: Timeouts | None = None,
    ) -> None:
        """`model` is a further name it answers to beside the file's own; `num_ctx` is for each of the `parallelism`.

        Raises StartupError if the file is not there or is no GGUF file.
        """
        _check(path)
        self.parallelism = parallelism or 2
        self._path = path
        self._names = tuple(dict.fromkeys((model or path.stem, path.stem)))
        self._num_ctx = num_ctx
        self._threads, self._gpu_layers = threads, gpu_layers
        self._timeouts = timeouts
        self._lock = anyio.Lock()
        self._server: Any = None
        self._client: OpenAIBackend | None = None
        self._info: ModelInfo | None = None
        self.address = ""

    async def models(self) -> Sequence[ModelInfo]:
        """The file's model, once under each of its names."""
        await self._start()
        assert self._info is not None
        return [replace(self._info, name=name) for name in self._names]

    async def ready(self, model: str) -> None:
        """Load the file if it is not loaded yet; raises ModelNotFound for another name."""
        if model not in self._names:
            raise ModelNotFound(f"There is no such model: {model}. {self._path.name} is {' or '.join(self._names)}.")
        await self._start()

    async def chat(self, request: ChatRequest) -> AsyncIterator[Delta]:
        """Stream one reply."""
        await self.ready(request.model)
        client = await self._start()
        async with aclosing(cast("Any", client.chat(replace(request, model=self._path.stem)))) as stream:
            async for delta in stream:
                if delta.finish is not None and self._info is not None:
                    usage = replace(delta.finish.usage, context_tokens=self._info.context)
                    delta = replace(delta, finish=replace(delta.finish, usage=usage))
                yield delta

    async def embed(self, model: str, inputs: Sequence[str]) -> Embeddings:
        """Refused: the file is loaded for chat."""
        raise BackendRejected(f"The llama.cpp backend makes no embeddings: {model}. Use Ollama for them.")

    async def aclose(self) -> None:
        """Stop the server and free the model's memory."""
        if self._client is not None:
            await self._client.aclose()
        self._client = None
        # The last reference goes in a thread: freeing the server joins llama.cpp's own threads.
        held, self._server = [self._server], None
        await anyio.to_thread.run_sync(held.clear)

    async def _start(self) -> OpenAIBackend:
        async with self._lock:
            if self._client is None:
                key = secrets.token_urlsafe(32)
                self._server = await anyio.to_thread.run_sync(self._load, key)
                self.address = str(self._server.listening_address)
                self._client = OpenAIBackend(
                    self.address + "/v1",
                    api_key=key,
                    parallelism=self.parallelism,
                    timeouts=self._timeouts,
                    use_environment=False,
                    label="llama.cpp",
                )
                digest = await anyio.to_thread.run_sync(_digest, self._path)
                self._info = await self._describe(key, digest)
            return self._client

    def _load(self, key: str) -> Any:
        import xllamacpp  # has no types

        library: Any = xllamacpp

        params = library.CommonParams()
        params.model.path = str(self._path)
        params.model_alias = {self._path.stem}
        params.hostnames = ["127.0.0.1"]
        params.port = 0
        params.api_keys = [key]
        params.n_parallel = self.parallelism
        params.n_ctx = self._num_ctx * self.parallelism  # divided among the slots
        params.ctx_shift = False
        params.ui = False
        params.endpoint_slots = False
        params.verbosity = 0
        if self._threads:
            params.cpuparams.n_threads = self._threads
        if self._gpu_layers is not None:
            params.n_gpu_layers = self._gpu_layers
        try:
            return library.Server(params)
        except RuntimeError as error:
            raise BackendFailed(f"llama.cpp cannot load the model: {self._path}: {error}.") from None

    async def _describe(self, key: str, digest: str) -> ModelInfo:
        transport = Transport(self.address, timeouts=PROBE, headers={"Authorization": f"Bearer {key}"})
        try:
            async with transport.open("GET", "/props") as reply:
                props: dict[str, Any] = await reply.json()
        finally:
            await transport.aclose()
        caps: dict[str, Any] = props.get("chat_template_caps") or {}
        context = (props.get("default_generation_settings") or {}).get("n_ctx") or self._num_ctx
        vision = bool((props.get("modalities") or {}).get("vision"))
        return ModelInfo(self._path.stem, digest, int(context), tools=bool(caps.get("supports_tools")), vision=vision)


def _check(path: Path) -> None:
    try:
        with path.open("rb") as file:
            magic = file.read(4)
    except OSError as error:
        raise StartupError(
            f"Cannot read the model: {path}: {error.strerror}.", "Set AGENT_LOOP_GGUF to a GGUF file."
        ) from None
    if magic != b"GGUF":
        raise StartupError(f"Not a GGUF file: {path}.", "Set AGENT_LOOP_GGUF to a GGUF file.")


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()
