"""An export on real llama.cpp: it passes as made, and fails for every way we know to break it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from tests.trainer.export.conftest import write_run
from trainer.data.template import ChatTokenizer
from trainer.export import gguf, job, probes
from trainer.export.cli import app
from trainer.export.errors import ExportError, VerificationFailed
from trainer.export.job import Request, export
from trainer.export.llama import Llama
from trainer.export.merge import merge
from trainer.export.quantise import Kind
from trainer.export.reference import load
from trainer.export.verify import BOUNDS, Figures, Reference, verify

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def report(run: Path) -> dict[str, Any]:
    """Every kind of file, exported once."""
    return json.loads(export(Request(run, kinds=tuple(Kind), threads=1), lambda _: None).read_text())


@pytest.fixture(scope="module")
def reference(run: Path) -> Reference:
    """The trained model."""
    return load(run)[0]


@pytest.fixture
def broken(merged: Path, tmp_path: Path) -> Path:
    """A merged folder to damage."""
    return Path(shutil.copytree(merged, tmp_path / "broken"))


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    said = json.loads(path.read_text())
    change(said)
    path.write_text(json.dumps(said))


def judge(folder: Path, base: Path, reference: Reference, chats: int = 6) -> Figures:
    """Convert a folder and compare it with what was trained."""
    path = gguf.write(folder, folder / "model.gguf", Kind.F16)
    with Llama(path, threads=1) as llama:
        return verify(llama, reference, ChatTokenizer.load(base), probes.chats([], chats), BOUNDS[Kind.F16])


class TestPasses:
    def test_every_kind(self, report: dict[str, Any], run: Path) -> None:
        """F16, Q8_0 and Q4_K_M pass on 32 prompts, and export.json holds figures and digests of what is there."""
        assert report["verified"] is True
        assert [file["kind"] for file in report["files"]] == ["f16", "q8_0", "q4_k_m"]
        sizes = [file["bytes"] for file in report["files"]]
        assert sizes == sorted(sizes, reverse=True)
        for file in report["files"]:
            found = file["verification"]
            assert (found["prompts"], found["same_tokens"], found["same_template"]) == (32, 32, 32)
            assert found["steps"] > 32
            assert found["problems"] == []
            path = run / "export" / file["file"]
            assert (gguf.digest(path), path.stat().st_size) == (file["digest"], file["bytes"])

    def test_f16_is_exact(self, report: dict[str, Any]) -> None:
        """F16 chooses the same token everywhere, with log-probabilities within a hundredth."""
        found = report["files"][0]["verification"]
        assert found["agreement"] == 1.0
        assert found["largest_difference"] < 0.01

    def test_modelfiles(self, report: dict[str, Any], run: Path) -> None:
        """Each file has its Modelfile; the first kind's is the plain one."""
        for name, file in (("Modelfile", "F16"), ("Modelfile.Q8_0", "Q8_0"), ("Modelfile.Q4_K_M", "Q4_K_M")):
            assert (run / "export" / name).read_text().startswith(f"FROM ./model-{file}.gguf\nTEMPLATE")

    def test_same_bytes_again(self, merged: Path, tmp_path: Path) -> None:
        """The same folder gives the same file."""
        first = gguf.write(merged, tmp_path / "a.gguf", Kind.Q4_K_M)
        assert gguf.digest(first) == gguf.digest(gguf.write(merged, tmp_path / "b.gguf", Kind.Q4_K_M))

    def test_adapter_only(self, run: Path, tmp_path: Path) -> None:
        """The LoRA alone, put on the base by llama.cpp, answers as the trained model within F16's bounds."""
        copy = Path(shutil.copytree(run, tmp_path / "copy", ignore=shutil.ignore_patterns("export")))
        said = json.loads(export(Request(copy, adapter_only=True, threads=1), lambda _: None).read_text())
        assert said["files"][0]["kind"] == "lora"
        assert said["files"][0]["verification"]["same_answers"] == 32
        assert "ADAPTER ./adapter-lora.gguf" in (copy / "export" / "Modelfile.adapter").read_text()


class TestFails:
    """Each damage is one that makes a file which loads, answers, and answers wrongly."""

    def test_undamaged(self, broken: Path, base: Path, reference: Reference) -> None:
        """The yardstick of this class: the same steps without damage find nothing."""
        assert judge(broken, base, reference).problems == []

    def test_turn_markers_no_tokens(self, broken: Path, base: Path, reference: Reference) -> None:
        """Added tokens lost from the tokenizer files: `<start_of_turn>` falls to pieces."""
        edit(broken / "tokenizer_config.json", lambda said: said.pop("added_tokens_decoder"))
        edit(broken / "tokenizer.json", lambda said: said.update(added_tokens=[]))
        found = judge(broken, base, reference)
        assert found.same_tokens == 0
        assert "base model's own tokenizer files" in found.problems[0]

    def test_no_bos(self, broken: Path, base: Path, reference: Reference) -> None:
        """A tokenizer that adds no BOS asks differently."""
        edit(broken / "tokenizer_config.json", lambda said: said.update(add_bos_token=False))
        assert judge(broken, base, reference).same_tokens == 0

    def test_chat_template(self, broken: Path, base: Path, reference: Reference) -> None:
        """Another chat template in the file is found although every weight is right."""
        edit(
            broken / "tokenizer_config.json",
            lambda said: said.update(chat_template=said["chat_template"].replace("'model'", "'assistant'")),
        )
        found = judge(broken, base, reference)
        # the role's name shows only after an assistant's turn: in one of these chats
        assert found.same_template < found.prompts
        assert any("chat template in the file" in problem for problem in found.problems)

    def test_weights_swapped(self, broken: Path, base: Path, reference: Reference) -> None:
        """Two layers in each other's place: the sizes fit, the answers do not."""
        file = broken / "model.safetensors"
        tensors = load_file(file)
        one, two = (f"model.layers.{layer}.mlp.down_proj.weight" for layer in (0, 1))
        tensors[one], tensors[two] = tensors[two], tensors[one]
        save_file(tensors, file, metadata={"format": "pt"})
        assert judge(broken, base, reference).problems

    def test_norms_off_by_one(
        self, broken: Path, base: Path, reference: Reference, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A converter that forgets Gemma's 1 + w makes a file that loads; it is not let through."""
        file = broken / "model.safetensors"
        tensors = {k: v - 1 if k.endswith("norm.weight") else v for k, v in load_file(file).items()}
        save_file(tensors, file, metadata={"format": "pt"})
        assert judge(broken, base, reference).problems

    def test_not_a_number(self, broken: Path, base: Path, reference: Reference) -> None:
        """One NaN among the weights is not an answer."""
        file = broken / "model.safetensors"
        tensors = load_file(file)
        tensors["model.norm.weight"][0] = torch.nan
        save_file(tensors, file, metadata={"format": "pt"})
        assert judge(broken, base, reference).problems

    def test_adapter_forgotten(self, run: Path, base: Path, reference: Reference, tmp_path: Path) -> None:
        """The base without what was trained is not the trained model."""
        bare = merge(run / "base", None, tmp_path / "bare", compute="float32")
        assert judge(bare, base, reference).problems


class TestCommand:
    def test_failure_has_its_exit_status(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A failed verification exits with 23, names the file, sets it aside and leaves export.json as the record."""
        bad = write_run(tmp_path / "bad")
        real = job.merge
        monkeypatch.setattr(
            job, "merge", lambda base, adapter, out, **words: real(base, None, out, compute=words["compute"])
        )
        done = CliRunner().invoke(app, ["export", str(bad), "--gguf", "f16", "--threads", "1"])
        assert done.exit_code == VerificationFailed.exit_code == 23
        assert "model-F16.gguf: " in done.stderr
        out = bad / "export"
        assert (out / "model-F16.gguf.failed").is_file()
        assert not (out / "model-F16.gguf").exists()
        assert not (out / "Modelfile").exists()
        said = json.loads((out / "export.json").read_text())
        assert said["verified"] is False
        assert said["files"][0]["verification"]["problems"]

    def test_no_run(self, tmp_path: Path) -> None:
        """A folder that is no run is named, with the way to find one."""
        done = CliRunner().invoke(app, ["export", str(tmp_path / "nowhere")])
        assert done.exit_code == ExportError.exit_code
        assert "nowhere" in done.stderr
        assert "train-status" in done.stderr


class TestLlama:
    def test_a_file_that_is_none(self, tmp_path: Path) -> None:
        """A broken file is an error in words, not a crash of this process."""
        path = tmp_path / "broken.gguf"
        path.write_bytes(b"GGUF" + bytes(100))
        with pytest.raises(ExportError, match="cannot load the file"):
            Llama(path)
