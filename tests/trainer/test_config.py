"""Layers of configuration, their origins, and errors all at once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from trainer import config
from trainer.errors import ConfigError


class TestLayers:
    def test_later_layers_win_and_are_named(self, tmp_path: Path) -> None:
        """default < preset < YAML < option < --set, and each value says which layer set it."""
        yaml = tmp_path / "run.yaml"
        yaml.write_text("lora: {rank: 4, alpha: 8}\nbatch: {micro: 3}\noptimizer: {lr: 1e-3}\n")
        found = config.resolve(
            "gemma-2b", yaml=yaml, options={"optimizer.lr": 2e-3, "run.max_steps": None}, sets=["lora.rank=2"]
        )
        assert (found.config.lora.rank, found.origins["lora.rank"]) == (2, "--set")
        assert (found.config.lora.alpha, found.origins["lora.alpha"]) == (8, "run.yaml")
        assert (found.config.optimizer.lr, found.origins["optimizer.lr"]) == (2e-3, "option")
        assert (found.config.batch.micro, found.origins["batch.micro"]) == (3, "run.yaml")
        assert (found.config.batch.accumulation, found.origins["batch.accumulation"]) == (4, "default")
        assert found.origins["model.id"] == "preset gemma-2b"
        assert found.origins["run.max_steps"] == "default"

    @pytest.mark.parametrize(("model", "micro"), [("gemma-2b", 4), ("gemma-9b", 2)])
    def test_presets_have_the_batches_asked_for(self, model: str, micro: int) -> None:
        """gemma-2b trains with micro-batches of 4, gemma-9b of 2, both accumulating 4, with 8-bit AdamW."""
        found = config.resolve(model).config
        assert (found.batch.micro, found.batch.accumulation, found.optimizer.name) == (micro, 4, "adamw_8bit")

    def test_any_model_goes_by_id(self) -> None:
        """A name that is no preset is an id or folder, with the defaults."""
        found = config.resolve("someone/some-model")
        assert found.config.model.id == "someone/some-model"

    def test_yaml_switches_are_switches(self) -> None:
        """YAML reads on and off as truth values; the settings still take them."""
        memory = config.resolve("tiny", sets=["memory.resident=on", "memory.checkpointing=off"]).config.memory
        assert (memory.resident, memory.checkpointing) == ("on", "off")

    def test_saved_and_loaded(self, tmp_path: Path) -> None:
        """RUN/config.json gives back configuration and origins."""
        found = config.resolve("tiny", sets=["lora.rank=2", "run.trackers=[tensorboard]"])
        found.save(tmp_path / "config.json")
        assert config.load(tmp_path / "config.json") == found
        assert json.loads((tmp_path / "config.json").read_text())["values"]["lora"]["rank"] == 2


class TestErrors:
    def test_everything_wrong_is_reported_at_once(self, tmp_path: Path) -> None:
        """One error holds a line for each wrong value of each layer, with the layer's name and a suggestion."""
        yaml = tmp_path / "bad.yaml"
        yaml.write_text("lora: {rnk: 4}\noptimizer: {name: sgd}\n")
        with pytest.raises(ConfigError) as caught:
            config.resolve("tiny", yaml=yaml, sets=["lora.rank=0", "nonsense", "data.max_length=x"])
        text = str(caught.value)
        assert len(caught.value.problems) == 5
        assert "Unknown setting 'lora.rnk' (bad.yaml). Did you mean 'lora.rank'?" in text
        assert "Wrong value for 'optimizer.name': 'sgd' (bad.yaml)" in text
        assert "Wrong value for 'lora.rank': 0 (--set)" in text
        assert "--set nonsense" in text
        assert caught.value.exit_code == 2

    def test_broken_yaml_names_its_place(self, tmp_path: Path) -> None:
        """A syntax error says the line."""
        yaml = tmp_path / "bad.yaml"
        yaml.write_text("lora: {rank: 4\n")
        with pytest.raises(ConfigError, match="line 2"):
            config.resolve("tiny", yaml=yaml)

    def test_contradictions_are_refused(self) -> None:
        """Early stopping without evaluations cannot be."""
        with pytest.raises(ConfigError, match=r"eval\.patience needs"):
            config.resolve("tiny", sets=["eval.patience=2", "eval.every=0"])


def test_what_changes_the_run_and_what_does_not() -> None:
    """Bookkeeping may differ on resume; anything that changes the numbers is named with both values."""
    before = config.resolve("tiny").config
    after = config.resolve("tiny", sets=["run.log_every=7", "checkpoint.keep=9", "lora.rank=2"]).config
    assert config.changed(before, after) == ["lora.rank: 16 -> 2"]
