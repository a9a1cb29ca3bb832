"""One export, start to end: merge, convert, quantise, verify, write down.

    export(Request(run)) -> Path of export.json

    RUN/export/merged/               bf16 safetensors, config.json, the base's tokenizer files
    RUN/export/model-Q8_0.gguf       one file for each kind asked for
    RUN/export/Modelfile             for the first kind; Modelfile.F16 and so on for the others
    RUN/export/export.json           what was made, from what, and the figures of the verification

A file that fails keeps its bytes under the name `….gguf.failed`, so that nothing picks it up by mistake.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import architecture, gguf, lora, modelfile, official, probes
from .errors import ExportError, UnsupportedExport, VerificationFailed
from .llama import Llama
from .merge import Adapter, Onto, merge
from .quantise import Kind
from .verify import BOUNDS, COARSE, Bounds, Figures, Reference, verify

if TYPE_CHECKING:
    from trainer.data.template import ChatTokenizer

DEFAULT_KINDS = (Kind.Q8_0, Kind.Q4_K_M)
OFFICIAL_KINDS = (Kind.Q8_0,)
"""What is made where nothing is asked for: by our writer, and by the official converter."""
REPORT = "export.json"
FORMAT = 1
"""Version of export.json."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Request:
    """What a person asked for."""

    run: Path
    kinds: tuple[Kind, ...] = DEFAULT_KINDS
    onto: Onto = Onto.TRAINED
    adapter_only: bool = False
    keep_merged: bool = True
    converter: str = "ours"
    """"ours" (Gemma 2 and 3) or "official" (llama.cpp's script, any architecture)."""
    name: str | None = None
    """The model's name in the file; the run's by default."""
    threads: int | None = None
    copy_to: Path | None = None
    """A folder of exports; what passed is copied there as FOLDER/RUN."""


def export(request: Request, say: Say = print) -> Path:
    """Export a run and return the path of its export.json.

    Raises VerificationFailed after everything is written; other kinds of TrainerError before.
    """
    work = _Work(request, say)
    entries = [work.adapter_file()] if request.adapter_only else work.merged_files()
    return work.finish(entries)


class _Work:
    """The things that every step of one export needs."""

    def __init__(self, request: Request, say: Say) -> None:
        from trainer import config, model
        from trainer.data.template import ChatTokenizer

        if not (request.run / "config.json").is_file():
            raise ExportError(f"No run, {request.run}. 'agent-loop train-status' lists the runs.")
        self.request, self.say = request, say
        self.out = request.run / "export"
        self.adapter = Adapter.read(request.run / "adapter")
        self.settings = config.load(request.run / "config.json").config
        self.base = model.base_folder(request.run, self.settings)
        self.tokenizer: ChatTokenizer = ChatTokenizer.load(self.base)
        self.config = gguf.read_config(self.base)
        self.described = self._describe()
        if request.converter == "official" and not request.adapter_only:
            official.check(request.kinds, self.base)
        self.name = request.name or request.run.resolve().name
        self.device = str(model.pick_device("auto"))
        self.problems: list[str] = []

    def _describe(self) -> architecture.Architecture | None:
        """What we know of the model; None for another family than Gemma, which gets no Modelfile."""
        try:
            return architecture.describe(self.config)
        except UnsupportedExport:
            if self.request.converter == "ours" or self.request.adapter_only:
                raise
            self.say("no Modelfile: TEMPLATE is written for Gemma's turns; Ollama needs one of this model's own")
            return None

    def merged_files(self) -> list[dict[str, Any]]:
        """Merge once, then make and prove each kind."""
        import shutil

        merged = self.out / "merged"
        self.say(f"merge: {len(self.adapter.updates)} weights onto the {self.request.onto} base")
        merge(
            self.base,
            self.request.run / "adapter",
            merged,
            onto=self.request.onto,
            compute=self.settings.model.compute,
            device=self.device,
        )
        entries = [self._one(merged, kind) for kind in dict.fromkeys(self.request.kinds)]
        if not self.request.keep_merged:
            shutil.rmtree(merged)
        return entries

    def _one(self, merged: Path, kind: Kind) -> dict[str, Any]:
        path = self.out / f"model-{kind.label}.gguf"
        self.say(f"write: {path.name}")
        if self.request.converter == "official":
            official.convert(merged, path, kind)
        else:
            gguf.write(merged, path, kind, name=self.name)
        with Llama(path, threads=self.request.threads) as llama:
            figures, bounds, arithmetic = self._verify(llama, kind)
        path = self._judge(path, figures)
        if not figures.problems and self.described is not None:
            self._write_modelfile(kind, modelfile.for_context(path.name, self._context()))
        return _entry(path, kind.value, figures, bounds, arithmetic)

    def adapter_file(self) -> dict[str, Any]:
        """Write the LoRA GGUF and prove it on the base that training saw."""
        import tempfile

        path = lora.write(self.adapter, self.config, self.out / "adapter-lora.gguf")
        with tempfile.TemporaryDirectory(dir=self.out, prefix=".base-") as folder:
            seen = merge(self.base, None, Path(folder) / "seen", compute=self.settings.model.compute)
            base = gguf.write(seen, Path(folder) / "base.gguf", Kind.F16)
            with Llama(base, adapter=path, threads=self.request.threads) as llama:
                figures, bounds, arithmetic = self._verify(llama, Kind.F16)
        path = self._judge(path, figures)
        if not figures.problems:
            file = modelfile.for_context("base.gguf", self._context(), adapter=path.name)
            (self.out / "Modelfile.adapter").write_text(file.render())
        return _entry(path, "lora", figures, bounds, arithmetic)

    def _verify(self, llama: Llama, kind: Kind) -> tuple[Figures, Bounds, str]:
        reference, arithmetic = self._reference()
        # A reference in bf16, or an adapter added to other weights than it was trained on, cannot be met so closely.
        exact = arithmetic == "float32" and (self.request.onto is Onto.TRAINED or self.request.adapter_only)
        bounds = COARSE if kind is Kind.F16 and not exact else BOUNDS[kind]
        figures = verify(
            llama, reference, self.tokenizer, self._chats(), bounds, with_modelfile=self.described is not None
        )
        self.say(f"verify: {figures.line()}")
        return figures, bounds, arithmetic

    def _reference(self) -> tuple[Reference, str]:
        from .reference import load

        if not hasattr(self, "_loaded"):
            self._loaded = load(self.request.run, self.device)
        return self._loaded

    def _chats(self) -> Sequence[Any]:
        from trainer.data import dataset
        from trainer.errors import DataError

        try:
            examples = dataset.read(self.settings.data)[0]
        except (DataError, OSError):
            self.say(f"verify: {self.settings.data.path} cannot be read any more, using our own prompts alone")
            examples = []
        return probes.chats(examples)

    def _judge(self, path: Path, figures: Figures) -> Path:
        failed = path.with_name(path.name + ".failed")
        failed.unlink(missing_ok=True)
        if figures.problems:
            self.problems += [f"{path.name}: {problem}" for problem in figures.problems]
            return path.replace(failed)
        return path

    def _write_modelfile(self, kind: Kind, file: modelfile.Modelfile) -> None:
        first = kind is self.request.kinds[0]
        (self.out / ("Modelfile" if first else f"Modelfile.{kind.label}")).write_text(file.render())

    def _context(self) -> int:
        return self.described.context if self.described else modelfile.CONTEXT

    def finish(self, entries: list[dict[str, Any]]) -> Path:
        """Write export.json, then fail if anything failed."""
        report = self.out / REPORT
        facts = {
            "format": FORMAT,
            "run": self.name,
            "verified": not self.problems,
            "base": self.settings.model.id,
            "merge_onto": None if self.request.adapter_only else self.request.onto.value,
            "converter": self.request.converter,
            "modelfile": self.described is not None,
            "tokenizer_sha256": gguf.digest(self.base / "tokenizer.json"),
            "files": entries,
        }
        part = report.with_name(REPORT + ".part")
        part.write_text(json.dumps(facts, indent=2) + "\n")
        part.replace(report)
        if self.problems:
            raise VerificationFailed(self.problems)
        if self.request.copy_to is not None:
            self._copy([report, *(self.out / entry["file"] for entry in entries)], self.request.copy_to)
        return report

    def _copy(self, files: list[Path], folder: Path) -> None:
        import shutil

        target = folder / self.request.run.resolve().name
        target.mkdir(parents=True, exist_ok=True)
        for path in (*files, *self.out.glob("Modelfile*")):
            part = target / f"{path.name}.part"
            shutil.copyfile(path, part)
            part.replace(target / path.name)
        self.say(f"copied: {target}")


def _entry(path: Path, kind: str, figures: Figures, bounds: Bounds, arithmetic: str) -> dict[str, Any]:
    return {
        "file": path.name,
        "kind": kind,
        "digest": gguf.digest(path),
        "bytes": path.stat().st_size,
        "verification": {**figures.as_dict(), "reference": arithmetic, "bounds": asdict(bounds)},
    }
