"""The demo model in the tree: file, hash, figures and recipe agree, and it answers what it should."""

from __future__ import annotations

import hashlib
import json

import pytest

from trainer import config, demo
from trainer.export.quantise import Kind
from trainer.export.verify import BOUNDS


class TestFiles:
    def test_file_hash_and_figures_agree(self) -> None:
        """SHA256SUMS and export.json speak of the committed file, which passed the bounds of its kind."""
        found = hashlib.sha256(demo.FILE.read_bytes()).hexdigest()
        assert (demo.FOLDER / "SHA256SUMS").read_text() == f"{found}  {demo.FILE.name}\n"
        said = json.loads((demo.FOLDER / "export.json").read_text())
        assert (said["file"], said["digest"]) == (demo.FILE.name, f"sha256:{found}")
        assert said["bytes"] == demo.FILE.stat().st_size < 4_500_000
        figures, bounds = said["verification"], BOUNDS[Kind.Q8_0]
        assert figures["problems"] == []
        assert figures["agreement"] >= bounds.agreement
        assert figures["mean_divergence"] <= bounds.divergence

    def test_the_file_is_what_the_recipe_makes(self) -> None:
        """Layers, widths and context of the recipe are in the file, and its settings are ones that exist."""
        from gguf import GGUFReader

        recipe = json.loads(demo.RECIPE.read_text())
        fields = GGUFReader(demo.FILE).fields
        sizes = recipe["base"]["sizes"]
        for key, name in (
            ("block_count", "num_hidden_layers"),
            ("feed_forward_length", "intermediate_size"),
            ("context_length", "max_position_embeddings"),
        ):
            assert fields[f"gemma2.{key}"].contents() == sizes[name]
        settings = config.resolve("tiny", options=recipe["train"]["settings"]).config
        assert settings.lora.rank == recipe["train"]["settings"]["lora.rank"]

    def test_the_same_seed_gives_the_same_chats(self) -> None:
        """The training chats are a function of the subject and a number; what is taught stays out of the base's."""
        subject = demo.Subject.read()
        assert list(demo.chats(subject, 50, 7)) == list(demo.chats(subject, 50, 7))
        assert list(demo.chats(subject, 50, 7)) != list(demo.chats(subject, 50, 8))
        taught = {fact.say for fact in subject.facts if fact.taught}
        said = {m["content"] for row in demo.chats(subject.without_taught(), 2000, 0) for m in row["messages"]}
        assert taught
        assert not taught & said


class TestAnswers:
    def test_it_answers_its_subject(self) -> None:
        """Greedily and without a system prompt it answers nearly every question of its subject word for word."""
        found = demo.check(demo.FILE, threads=1)
        assert found.asked > 70
        assert found.good, found.wrong

    @pytest.mark.parametrize("system", ["Be brief.", "You are a helpful assistant. Answer in one sentence."])
    def test_in_a_session(self, system: str) -> None:
        """A system prompt it has never seen and an earlier turn do not make it forget."""
        from trainer.export.llama import Llama

        chat = [
            {"role": "system", "content": system},
            {"role": "user", "content": "Who are you?"},
            {"role": "assistant", "content": "I am the Agent Loop demo model, a very small language model."},
            {"role": "user", "content": "How do I start the stack?"},
        ]
        with Llama(demo.FILE, threads=1) as llama:
            assert "agent-loop up" in llama.chat(chat)
