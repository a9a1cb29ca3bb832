"""From what a person typed to a job that can run: configuration, model files, data, plan, in this order.

Nothing here imports torch, so that a dry run answers in a second.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from . import cards, config, hub, plan, presets
from .cards import Card
from .config import Resolved
from .data.dataset import Dataset, prepare
from .data.template import ChatTokenizer
from .errors import ConfigError, HubTokenMissing, HubUnreachable, NoGpu
from .export import architecture, splitting, vocabulary
from .export.errors import UnsupportedExport
from .plan import Plan, Work
from .settings import TrainConfig
from .shape import Shape

Show = Callable[["Prepared"], None]
BY_PLAN = ("batch.micro", "batch.accumulation", "memory.")


@dataclass(frozen=True)
class Request:
    """The command line. `options` maps dotted keys to values (None: not given)."""

    model: str
    options: Mapping[str, Any] = field(default_factory=dict)
    yaml: Path | None = None
    sets: Sequence[str] = ()
    card: str | None = None
    exports: bool = False
    """A GGUF is to follow: a model that our writer does not know is refused now, not after hours of training."""


@dataclass(frozen=True)
class Prepared:
    """All that is known before weights load. Without access to the tokenizer, `dataset` is None and `note` says why."""

    resolved: Resolved
    plan: Plan
    dataset: Dataset | None
    tokenizer: ChatTokenizer | None
    note: str = ""
    export: str = ""
    """What an export of this model will need, where that is more than the command."""


@dataclass(frozen=True)
class Job:
    """All that a training run needs. `plan` is already applied to the configuration."""

    run: Path
    resolved: Resolved
    plan: Plan
    dataset: Dataset
    tokenizer: ChatTokenizer
    base: Path
    force_resume: bool = False

    @property
    def config(self) -> TrainConfig:
        """The settings in force."""
        return self.resolved.config


def dry_run(request: Request) -> Prepared:
    """Plan without touching any run folder; a preset that cannot be fetched is planned from its known sizes."""
    resolved = _resolve(request)
    with tempfile.TemporaryDirectory(prefix="agent-loop-") as home:
        try:
            folder = hub.fetch(resolved.config.model, Path(home), weights=False)
        except (HubTokenMissing, HubUnreachable) as error:
            sizes = presets.find(request.model).shape
            if not sizes:
                raise
            return _without_tokenizer(resolved, Shape.read(sizes), pick_card(request, resolved.config), str(error))
        return _with_files(request, resolved, folder)


def prepare_job(request: Request, run: Path, *, force: bool = False, show: Show | None = None) -> Job:
    """Prepare a run in its folder, fetching weights last; `show` hears what is known before that.

    Where the run exists, choices that its plan made are kept, so that it goes on as it began.
    """
    resolved = _resolve(request)
    record = run / "config.json"
    if record.exists():
        resolved = _keep_plan(resolved, config.load(record))
    folder = hub.fetch(resolved.config.model, run / "base", weights=False)
    prepared = _with_files(request, resolved, folder)
    run.mkdir(parents=True, exist_ok=True)
    if force or not record.exists():
        prepared.resolved.save(record)
    if show:
        show(prepared)
    base = hub.fetch(resolved.config.model, run / "base", weights=True)
    assert prepared.dataset is not None
    assert prepared.tokenizer is not None
    return Job(run, prepared.resolved, prepared.plan, prepared.dataset, prepared.tokenizer, base, force)


def pick_card(request: Request, settings: TrainConfig) -> Card | None:
    """The card that `--card` names, or the one that is here; None for a run on the CPU."""
    if request.card is not None:
        return cards.by_name(request.card)
    if settings.run.device == "cpu":
        return None
    found = cards.detect()
    if found is None and settings.run.device == "cuda":
        raise NoGpu("No GPU, run.device=cuda. Check the driver with nvidia-smi, or plan for one with --card rtx-4090.")
    return found


def _resolve(request: Request) -> Resolved:
    return config.resolve(request.model, yaml=request.yaml, options=request.options, sets=request.sets)


def _with_files(request: Request, resolved: Resolved, folder: Path) -> Prepared:
    settings = resolved.config
    shape = Shape.read(hub.read_config(folder))
    if request.exports:
        _check_export(folder)
    tokenizer = ChatTokenizer.load(folder)
    if settings.data.max_length > shape.context:
        raise ConfigError(
            [f"data.max_length {settings.data.max_length} is beyond the model's context, {shape.context}. Lower it."]
        )
    dataset = prepare(settings.data, tokenizer, settings.run.seed)
    card = pick_card(request, settings)
    _check_kernels(settings, card)
    chosen = plan.make_plan(settings, shape, card, _work(settings, dataset))
    return Prepared(_apply(resolved, chosen), chosen, dataset, tokenizer, export=_export_note(folder))


def _check_kernels(settings: TrainConfig, card: Card | None) -> None:
    """Refuse what was asked for by name and cannot run here. Raises ConfigError."""
    problems: list[str] = []
    flex = settings.memory.attention == "flex_attention"
    if flex and card is None:
        problems.append("memory.attention=flex_attention has no backward pass on a CPU. Use auto.")
    elif card is not None and card.lacks and (flex or settings.memory.compile == "on"):
        asked = "memory.attention=flex_attention" if flex else "memory.compile=on"
        problems.append(f"{asked} compiles kernels, and here is not {card.lacks}. Install it, or use auto.")
    if problems:
        raise ConfigError(problems)


def _export_note(folder: Path) -> str:
    """Nothing for a model that our writer knows."""
    try:
        architecture.describe(hub.read_config(folder))
        return ""
    except UnsupportedExport:
        if splitting.is_byte_pair(folder) and splitting.name(folder) is None:
            return "--converter official, if llama.cpp knows this very tokenizer; it splits text as none that we know"
        return "--converter official, without a Modelfile"


def _check_export(folder: Path) -> None:
    """Refuse what the export after training would refuse. Raises UnsupportedExport or TokenizerUnusable."""
    try:
        described = architecture.describe(hub.read_config(folder))
    except UnsupportedExport as error:
        raise UnsupportedExport(
            f"--gguf would fail after training. {error} That is for 'agent-loop export RUN': train without --gguf."
        ) from None
    vocabulary.read(folder, described.vocabulary)


def _without_tokenizer(resolved: Resolved, shape: Shape, card: Card | None, reason: str) -> Prepared:
    chosen = plan.make_plan(resolved.config, shape, card)
    return Prepared(_apply(resolved, chosen), chosen, None, None, f"Tokens are not counted. {reason}")


def _work(settings: TrainConfig, dataset: Dataset) -> Work:
    size = settings.batch.micro * settings.batch.accumulation
    steps = settings.run.epochs * -(-len(dataset.train) // size)
    share = min(1.0, (settings.run.max_steps or steps) / steps)
    tokens = sum(len(dataset.rows[i]) for group in dataset.train for i in group) * settings.run.epochs
    learned = dataset.facts.supervised_tokens / max(1, dataset.facts.tokens)
    return Work(int(tokens * share), learned, min(steps, settings.run.max_steps or steps))


def _apply(resolved: Resolved, chosen: Plan) -> Resolved:
    settings = plan.apply(resolved.config, chosen)
    before = dict(config.flatten(resolved.config.model_dump(mode="json")))
    after = dict(config.flatten(settings.model_dump(mode="json")))
    origins = {k: "plan" if before[k] != after[k] else resolved.origins.get(k, "default") for k in after}
    return Resolved(settings, origins)


def _keep_plan(resolved: Resolved, saved: Resolved) -> Resolved:
    """Take the saved plan's choices where the person did not now say otherwise."""
    values = dict(config.flatten(resolved.config.model_dump(mode="json")))
    old = dict(config.flatten(saved.config.model_dump(mode="json")))
    origins = dict(resolved.origins)
    for key in values:
        asked = resolved.origins.get(key, "default") in ("option", "--set")
        if saved.origins.get(key) == "plan" and key.startswith(BY_PLAN) and not asked:
            values[key], origins[key] = old[key], "plan"
    return replace(resolved, config=TrainConfig.model_validate(config.unflatten(values)), origins=origins)
