"""llama.cpp with one GGUF file, in a process of its own, asked over loopback.

    with Llama(path) as llama:
        llama.tokenize("<start_of_turn>user\n")      ids, with BOS in front
        llama.render(messages)                       the file's own chat template
        llama.follow(ids, tokens=24, top=64)         greedy steps, each with the log-probabilities it chose from
        llama.chat(messages)                         an answer as a person gets it

The process is ended from outside: `xllamacpp.Server` sometimes never returns from its destructor, and a broken
file may abort. It listens on a free port of 127.0.0.1 and answers only to a key made for it.
"""

from __future__ import annotations

import math
import os
import secrets
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from .errors import ExportError

KEY = "AGENT_LOOP_LLAMA_KEY"
START_SECONDS = 300.0
ANSWER_SECONDS = 600.0


@dataclass(frozen=True)
class Step:
    """One generated token and the natural log-probabilities of the likeliest tokens at its place, by id.

    `logprobs` is empty where llama.cpp does not report them: at a byte that leaves a character unfinished.
    """

    token: int
    logprobs: Mapping[int, float]


class Llama:
    """A running llama.cpp. Raises ExportError when it cannot load the file or stops answering."""

    def __init__(
        self, path: Path, *, context: int = 2048, threads: int | None = None, adapter: Path | None = None
    ) -> None:
        import httpx

        if not path.is_file():
            raise ExportError(f"No such file, {path}.")
        key = secrets.token_urlsafe(24)
        words = [sys.executable, "-m", __name__, str(path), str(context), str(threads or 0), str(adapter or "")]
        # `python -m` looks from where it is started: put our package's parent on its path, whatever that folder is.
        root = str(Path(__file__).resolve().parents[2])
        search = os.pathsep.join(p for p in (root, os.environ.get("PYTHONPATH", "")) if p)
        self._path = path
        self._process = subprocess.Popen(
            words,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, KEY: key, "PYTHONPATH": search},
            text=True,
        )
        assert self._process.stdout is not None
        address = self._process.stdout.readline().strip()
        if not address.startswith("http"):
            self.close()
            raise ExportError(f"llama.cpp cannot load the file, {path}. {address or 'It stopped without a word.'}")
        self._http = httpx.Client(
            base_url=address,
            headers={"Authorization": f"Bearer {key}"},
            timeout=ANSWER_SECONDS,
            trust_env=False,
        )

    def tokenize(self, text: str) -> list[int]:
        """Token ids of `text`, special tokens parsed, BOS added as the file's metadata asks."""
        reply = self._post("/tokenize", {"content": text, "add_special": True, "parse_special": True})
        return [int(token) for token in reply["tokens"]]

    def render(self, messages: Sequence[Mapping[str, str]]) -> str:
        """The prompt that the file's chat template makes of `messages`, open for the answer, without BOS."""
        return str(self._post("/apply-template", {"messages": list(messages)})["prompt"])

    def follow(self, ids: Sequence[int], tokens: int, top: int) -> list[Step]:
        """Answer greedily after the prompt `ids`, at most `tokens` long, with `top` log-probabilities a step.

        The last step may be the token that ends the turn.
        """
        body = {"prompt": list(ids), "n_predict": tokens, "n_probs": top, "temperature": 0.0, "repeat_penalty": 1.0}
        reply = self._post("/completion", {**body, "cache_prompt": False, "return_tokens": True, "stream": False})
        reported = [
            Step(int(at["id"]), {int(other["id"]): _number(other["logprob"]) for other in at["top_logprobs"]})
            for at in reply.get("completion_probabilities", [])
        ]
        return align([int(token) for token in reply["tokens"]], reported)

    def chat(self, messages: Sequence[Mapping[str, str]], tokens: int = 128) -> str:
        """The greedy answer to `messages` through the chat endpoint."""
        body = {"messages": list(messages), "max_tokens": tokens, "temperature": 0.0, "repeat_penalty": 1.0}
        return str(self._post("/v1/chat/completions", body)["choices"][0]["message"]["content"])

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream:
                stream.close()
        if hasattr(self, "_http"):
            self._http.close()

    def __enter__(self) -> Llama:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        import httpx

        try:
            reply = self._http.post(path, json=body)
        except httpx.HTTPError as error:
            raise ExportError(f"llama.cpp stopped answering ({type(error).__name__}), {self._path}.") from None
        if reply.status_code != 200:
            raise ExportError(f"llama.cpp refused {path}: {reply.text[:300]}, {self._path}.")
        return reply.json()


def align(tokens: Sequence[int], reported: Sequence[Step]) -> list[Step]:
    """One step a generated token: llama.cpp generates every token but leaves some out of what it reports.

    `reported` is a subsequence of `tokens`. A step gets its log-probabilities only where it has one possible place,
    that is where matching from the front and matching from the back agree.
    """
    first, last = _places(tokens, reported), _places(tokens[::-1], reported[::-1])[::-1]
    steps = [Step(token, {}) for token in tokens]
    for step, early, late in zip(reported, first, last, strict=True):
        if early == len(tokens) - 1 - late:
            steps[early] = step
    return steps


def _places(tokens: Sequence[int], reported: Sequence[Step]) -> list[int]:
    """The earliest place of each reported step, in order. Raises ExportError where a step has none."""
    found: list[int] = []
    for step in reported:
        start = found[-1] + 1 if found else 0
        if step.token not in tokens[start:]:
            raise ExportError(f"llama.cpp reports token {step.token}, which is not in its answer {list(tokens)}.")
        found.append(tokens.index(step.token, start))
    return found


def _number(said: float | None) -> float:
    """A log-probability; JSON has no NaN, so llama.cpp says null."""
    return math.nan if said is None else float(said)


def main(argv: Sequence[str]) -> None:
    """Serve one file until standard input closes; the first line printed is the address, or what went wrong."""
    path, context, threads, adapter = argv
    import xllamacpp

    llama_cpp: Any = xllamacpp  # a binary module without type hints

    params = llama_cpp.CommonParams()
    params.model.path = path
    params.n_ctx = int(context)
    params.n_parallel = 1
    params.warmup = False
    params.verbosity = 0
    params.n_gpu_layers = 0
    params.api_keys = [os.environ[KEY]]
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = int(threads) or max(1, os.cpu_count() or 1)
    if adapter:
        one = llama_cpp.CommonAdapterLoraInfo()
        one.path, one.scale = adapter, 1.0
        params.lora_adapters = [one]
    try:
        server = llama_cpp.Server(params)
    except RuntimeError as error:
        print(error, flush=True)
        os._exit(1)
    print(server.listening_address, flush=True)
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1:])
