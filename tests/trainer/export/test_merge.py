"""The merged weights are the trained model's."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.trainer.export.conftest import RANK, write_adapter
from trainer.export.errors import ExportError, UnsupportedExport
from trainer.export.merge import Adapter, Onto, merge, place

WEIGHT = "model.layers.1.mlp.down_proj.weight"


class TestOntoTrained:
    def test_equals_the_loaded_model(self, run: Path, merged: Path) -> None:
        """Every merged weight is what the live QLoRA model multiplies by, rounded to bf16 once."""
        from trainer.model import load_trained, make_resident

        model: Any = load_trained(run)
        make_resident(model)
        live = {
            name: module.base_layer.weight + module.get_delta_weight("default")
            for name, module in model.named_modules()
            if hasattr(module, "base_layer")
        }
        found = load_file(merged / "model.safetensors")
        assert len(live) == 14
        for name, weight in live.items():
            stored = found[name.removeprefix("base_model.model.") + ".weight"]
            assert stored.dtype == torch.bfloat16
            # one bf16 step: the sums are taken in another order, so a value may round to its neighbour
            assert torch.allclose(stored.float(), weight.float(), rtol=2**-8, atol=1e-6)
            assert (stored == weight.to(torch.bfloat16)).float().mean() > 0.999

    def test_the_rest_is_untouched(self, base: Path, merged: Path) -> None:
        """Embedding and norms are the base's, tokenizer files are its bytes."""
        before, after = load_file(base / "model.safetensors"), load_file(merged / "model.safetensors")
        assert before.keys() == after.keys()
        for name in before:
            if place(name) is None or before[name].dim() == 1:
                assert torch.equal(before[name], after[name])
        for name in ("tokenizer.model", "tokenizer.json", "tokenizer_config.json", "config.json"):
            assert (base / name).read_bytes() == (merged / name).read_bytes()


class TestOtherWays:
    def test_onto_original(self, run: Path, merged: Path, tmp_path: Path) -> None:
        """`--merge-onto original` leaves the rounding to NF4 out: the same update on other weights."""
        out = merge(run / "base", run / "adapter", tmp_path / "out", onto=Onto.ORIGINAL, compute="float32")
        original = load_file(run / "base" / "model.safetensors")[WEIGHT].float()
        update = Adapter.read(run / "adapter").updates["layers.1.mlp.down_proj"]
        expected = (original + 2.0 * update.b @ update.a).to(torch.bfloat16)
        assert torch.equal(load_file(out / "model.safetensors")[WEIGHT], expected)
        assert not torch.equal(load_file(merged / "model.safetensors")[WEIGHT], expected)

    def test_rank_stabilised(self, base: Path, tmp_path: Path) -> None:
        """rsLoRA scales by alpha over the root of the rank."""
        adapter = Adapter.read(write_adapter(tmp_path / "a", base, use_rslora=True))
        assert adapter.scale == pytest.approx(16 / RANK**0.5)

    def test_dora_as_peft_merges_it(self, base: Path, tmp_path: Path) -> None:
        """A DoRA adapter is merged to the weights that PEFT itself computes."""
        from peft import PeftModel
        from transformers import AutoModelForCausalLM

        adapter = write_adapter(tmp_path / "a", base, use_dora=True)
        said = json.loads((adapter / "adapter_config.json").read_text())
        (adapter / "adapter_config.json").write_text(json.dumps({**said, "task_type": "CAUSAL_LM"}))
        plain: Any = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
        expected = PeftModel.from_pretrained(plain, str(adapter)).merge_and_unload().state_dict()[WEIGHT]
        out = merge(base, adapter, tmp_path / "out", onto=Onto.ORIGINAL)
        found = load_file(out / "model.safetensors")[WEIGHT].float()
        assert torch.allclose(found, expected, rtol=2**-8, atol=1e-5)

    def test_without_an_adapter(self, base: Path, tmp_path: Path) -> None:
        """Merging nothing gives the base as training saw it: rounded, near the original, not equal to it."""
        found = load_file(merge(base, None, tmp_path / "out") / "model.safetensors")[WEIGHT].float()
        original = load_file(base / "model.safetensors")[WEIGHT].float()
        assert 0.01 < (found - original).norm() / original.norm() < 0.15


class TestRefusals:
    def test_no_adapter(self, tmp_path: Path) -> None:
        """A run that never finished has nothing to export."""
        with pytest.raises(ExportError, match="trained to the end"):
            Adapter.read(tmp_path)

    def test_adapter_of_another_base(self, run: Path, base: Path, tmp_path: Path) -> None:
        """An adapter that changes a weight the base lacks is refused, and nothing is left behind."""
        from trainer import tiny

        smaller = tiny.make(tmp_path / "smaller", num_hidden_layers=1, intermediate_size=512)
        with pytest.raises(ExportError, match=r"layers\.1\..*base it was trained on"):
            merge(smaller, run / "adapter", tmp_path / "out")
        assert sorted(p.name for p in tmp_path.iterdir()) == ["smaller"]

    @pytest.mark.parametrize("setting", [{"bias": "all"}, {"rank_pattern": {"q_proj": 4}}, {"peft_type": "IA3"}])
    def test_unknown_kinds(self, run: Path, tmp_path: Path, setting: dict[str, Any]) -> None:
        """What the merge does not know it refuses: a half-merged model would be worse than none."""
        adapter = Path(shutil.copytree(run / "adapter", tmp_path / "a"))
        said = json.loads((adapter / "adapter_config.json").read_text())
        (adapter / "adapter_config.json").write_text(json.dumps({**said, **setting}))
        with pytest.raises(UnsupportedExport):
            Adapter.read(adapter)

    def test_adapters_outside_the_text_decoder(self, run: Path, tmp_path: Path) -> None:
        """A vision tower has layers of the same names: taken for the decoder's, they would replace its updates."""
        adapter = tmp_path / "adapter"
        shutil.copytree(run / "adapter", adapter)
        weights = load_file(adapter / "adapter_model.safetensors")
        name, value = next(iter(weights.items()))
        seen = name.replace("model.layers.", "model.vision_tower.encoder.layers.")
        assert seen != name
        save_file({**weights, seen: value.clone()}, adapter / "adapter_model.safetensors")
        with pytest.raises(UnsupportedExport, match=r"vision_tower.*our merge does not know it"):
            Adapter.read(adapter)

    def test_interrupted(self, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A merge that stops half-way leaves the finished folder of an earlier one as it was."""
        from trainer.export import merge as module

        out = tmp_path / "out"
        (out).mkdir()
        (out / "model.safetensors").write_text("earlier")
        monkeypatch.setattr(module, "_save", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left")))
        with pytest.raises(OSError, match="No space left"):
            merge(run / "base", run / "adapter", out, compute="float32")
        assert (out / "model.safetensors").read_text() == "earlier"
