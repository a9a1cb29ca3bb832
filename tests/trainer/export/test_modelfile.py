"""The Modelfile, against what a real Ollama 0.24 rendered and stored."""

from __future__ import annotations

import pytest

from trainer.export import modelfile
from trainer.export.modelfile import Modelfile

RECORDED = [
    (
        [("system", "Be brief."), ("user", "A"), ("assistant", "B"), ("user", "C")],
        "<start_of_turn>user\nBe brief.\n\nA<end_of_turn>\n<start_of_turn>model\nB<end_of_turn>\n"
        "<start_of_turn>user\nC<end_of_turn>\n<start_of_turn>model\n",
    ),
    (
        [("user", "  What do robots drink in Rome?  ")],
        "<start_of_turn>user\n  What do robots drink in Rome?  <end_of_turn>\n<start_of_turn>model\n",
    ),
]
"""Ollama's answers to `_debug_render_only` with this TEMPLATE (exchanges final_modelfile_render_system and
template_does_not_trim)."""


class TestTemplate:
    @pytest.mark.parametrize(("said", "rendered"), RECORDED)
    def test_renders_as_ollama_did(self, said: list[tuple[str, str]], rendered: str) -> None:
        """Our stand-in for Ollama's template engine renders what Ollama rendered."""
        assert modelfile.prompt([{"role": role, "content": content} for role, content in said]) == rendered

    def test_no_bos(self) -> None:
        """TEMPLATE leaves BOS to Ollama: twice changed 4 of 10 answers."""
        assert "bos" not in modelfile.TEMPLATE


class TestText:
    def test_every_line_that_counts(self) -> None:
        """The file names its GGUF, the template, both stops, no repeat penalty and one context size."""
        assert Modelfile("model-Q8_0.gguf").render() == (
            f'FROM ./model-Q8_0.gguf\nTEMPLATE """{modelfile.TEMPLATE}"""\n'
            'PARAMETER stop "<end_of_turn>"\nPARAMETER stop "<start_of_turn>"\n'
            "PARAMETER repeat_penalty 1.0\nPARAMETER num_ctx 4096\n"
        )

    def test_context_of_a_small_model(self) -> None:
        """A model trained on less than 4096 tokens is not asked for more."""
        assert "num_ctx 512\n" in modelfile.for_context("m.gguf", 512).render()
        assert "num_ctx 4096\n" in modelfile.for_context("m.gguf", 131072).render()

    def test_adapter(self) -> None:
        """An adapter stands beside its base."""
        text = Modelfile("base.gguf", adapter="lora.gguf").render()
        assert text.startswith("FROM ./base.gguf\nADAPTER ./lora.gguf\n")

    def test_parameters_for_the_api(self) -> None:
        """The API gets numbers and lists, not text: a wrong type makes every chat a 500."""
        assert Modelfile("m").parameters() == {
            "stop": ["<end_of_turn>", "<start_of_turn>"],
            "repeat_penalty": 1.0,
            "num_ctx": 4096,
        }
