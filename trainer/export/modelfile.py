"""The Modelfile that makes Ollama ask the model as it was trained.

    Modelfile(source, context=4096).render()     the text of a Modelfile beside a GGUF
    Modelfile.parameters()                       the same as /api/create wants it
    prompt(messages)                             what Ollama renders from TEMPLATE, to compare

Each line is there because leaving it out changed answers on Ollama 0.24 (docs/export.md): without TEMPLATE earlier
turns vanish unless Ollama happens to know the template; with `<bos>` in it BOS comes twice; without stops the newer
engine runs on; the default repeat penalty of 1.1 changes answers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

TEMPLATE = """\
{{- $system := "" }}
{{- range .Messages }}
{{- if eq .Role "system" }}{{ $system = .Content }}{{ continue }}
{{- else if eq .Role "assistant" }}<start_of_turn>model
{{ else }}<start_of_turn>user
{{ if $system }}{{ $system }}

{{ $system = "" }}{{ end }}
{{- end }}{{ .Content }}<end_of_turn>
{{ end }}<start_of_turn>model
"""
"""Gemma's turns; the system prompt goes before the next user turn. Ollama puts BOS in front by itself."""

STOPS = ("<end_of_turn>", "<start_of_turn>")
REPEAT_PENALTY = 1.0
CONTEXT = 4096


@dataclass(frozen=True)
class Modelfile:
    """What Ollama needs to know about a GGUF file."""

    source: str
    """The GGUF file's name, relative to the Modelfile."""
    template: str = TEMPLATE
    stops: tuple[str, ...] = STOPS
    repeat_penalty: float = REPEAT_PENALTY
    context: int = CONTEXT
    adapter: str | None = None
    """A LoRA GGUF to put on `source`."""

    def render(self) -> str:
        """The file's text."""
        lines = [f"FROM ./{self.source}"]
        if self.adapter:
            lines.append(f"ADAPTER ./{self.adapter}")
        lines.append(f'TEMPLATE """{self.template}"""')
        lines += [f'PARAMETER stop "{stop}"' for stop in self.stops]
        lines += [f"PARAMETER repeat_penalty {self.repeat_penalty}", f"PARAMETER num_ctx {self.context}"]
        return "\n".join(lines) + "\n"

    def parameters(self) -> dict[str, object]:
        """`parameters` of Ollama's /api/create."""
        return {"stop": list(self.stops), "repeat_penalty": self.repeat_penalty, "num_ctx": self.context}


def for_context(source: str, trained: int, adapter: str | None = None) -> Modelfile:
    """The Modelfile for a GGUF whose model has a context of `trained` tokens."""
    return Modelfile(source, context=min(CONTEXT, trained), adapter=adapter)


def prompt(messages: Sequence[Mapping[str, str]]) -> str:
    """The text that Ollama's template engine makes of `messages` with TEMPLATE, without BOS.

    It does not trim a message's content, which Gemma's own template does.
    """
    system, out = "", ""
    for message in messages:
        if message["role"] == "system":
            system = message["content"]
            continue
        if message["role"] == "assistant":
            out += "<start_of_turn>model\n"
        else:
            out += "<start_of_turn>user\n" + (system + "\n\n" if system else "")
            system = ""
        out += message["content"] + "<end_of_turn>\n"
    return out + "<start_of_turn>model\n"
