"""The configuration of a run: in which order layers win, and where each value came from.

    resolve("gemma-2b", yaml=Path("run.yaml"), sets=["lora.rank=8"]) -> Resolved

Layers, the later wins: default < preset < AGENT_LOOP_TRACKERS (a container's own trackers) < YAML file < command-line
option < `--set a.b=c`. Everything wrong is reported at once (`ConfigError.problems`), each with the layer that said it.
`Resolved.save` writes `RUN/config.json`: {"values": {...nested...}, "origins": {"lora.rank": "--set", ...}}.
"""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from . import presets
from .errors import ConfigError
from .settings import ModelConfig, TrainConfig

TRACKERS = "AGENT_LOOP_TRACKERS"
BOOKKEEPING = (
    "run.log_every",
    "run.trackers",
    "run.metrics_port",
    "checkpoint.",
    "data.path",
    "memory.loss_chunk",
    "eval.sample",
)
"""Keys (or beginnings of keys) that may differ on resume: they do not change what is learned."""


@dataclass(frozen=True)
class Resolved:
    """A configuration and, for each dotted key, the layer that set it."""

    config: TrainConfig
    origins: Mapping[str, str]

    def save(self, path: Path) -> None:
        """Write `RUN/config.json`."""
        record = {"values": self.config.model_dump(mode="json"), "origins": dict(self.origins)}
        path.write_text(json.dumps(record, indent=2) + "\n")

    def lines(self) -> Iterator[str]:
        """`key = value (origin)` for each key that is not at its default, for people."""
        for key, value in flatten(self.config.model_dump(mode="json")):
            if self.origins.get(key, "default") != "default":
                yield f"{key} = {value} ({self.origins[key]})"


def load(path: Path) -> Resolved:
    """Read a `RUN/config.json` back."""
    try:
        record = json.loads(path.read_text())
        return Resolved(TrainConfig.model_validate(record["values"]), record["origins"])
    except FileNotFoundError:
        raise ConfigError([f"No run: {path.parent} has no config.json. Give the folder of a run."]) from None
    except (ValueError, KeyError) as error:
        raise ConfigError([f"Unreadable configuration, {path}: {error}. Restore it from a backup."]) from None


def resolve(
    model: str,
    *,
    yaml: Path | None = None,
    options: Mapping[str, Any] | None = None,
    sets: Sequence[str] = (),
) -> Resolved:
    """Merge the layers into one configuration.

    `options` maps dotted keys to values given by command-line options (None: not given). Raises ConfigError with
    every problem of every layer.
    """
    preset = presets.find(model)
    problems: list[str] = []
    layers: list[tuple[str, dict[str, Any]]] = [
        (f"preset {preset.name}" if preset.name in presets.PRESETS else "--model", {"model.id": preset.id}),
        (f"preset {preset.name}", dict(preset.values)),
        (TRACKERS, _tracked()),
    ]
    if yaml is not None:
        layers.append((yaml.name, _read_yaml(yaml, problems)))
    layers.append(("option", {k: v for k, v in (options or {}).items() if v is not None}))
    layers.append(("--set", _read_sets(sets, problems)))
    known = {key for key, _ in flatten(_defaults())}
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for origin, layer in layers:
        for key, value in layer.items():
            if key not in known:
                near = difflib.get_close_matches(key, known, 1, cutoff=0.5)
                hint = f" Did you mean '{near[0]}'?" if near else f" Known: {', '.join(sorted(known))}."
                problems.append(f"Unknown setting '{key}' ({origin}).{hint}")
                continue
            values[key], origins[key] = value, origin
    config = None
    try:
        config = TrainConfig.model_validate(unflatten(values))
    except ValidationError as error:
        problems += [_problem(e, values, origins) for e in error.errors(include_url=False)]
    if problems or config is None:
        raise ConfigError(problems)
    return Resolved(config, {key: origins.get(key, "default") for key in known})


def changed(before: TrainConfig, after: TrainConfig) -> list[str]:
    """`key: old -> new` for each difference that changes what is learned."""
    old = dict(flatten(before.model_dump(mode="json")))
    new = dict(flatten(after.model_dump(mode="json")))
    return [f"{k}: {old[k]} -> {new[k]}" for k in sorted(old) if old[k] != new[k] and not k.startswith(BOOKKEEPING)]


def flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """{"a": {"b": 1}} -> ("a.b", 1)."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def unflatten(values: Mapping[str, Any]) -> dict[str, Any]:
    """{"a.b": 1} -> {"a": {"b": 1}}."""
    tree: dict[str, Any] = {}
    for key, value in values.items():
        *sections, last = key.split(".")
        node = tree
        for section in sections:
            node = node.setdefault(section, {})
        node[last] = value
    return tree


def _tracked() -> dict[str, Any]:
    """What the surroundings track by: names with commas between them; unset or empty says nothing."""
    names = tuple(name.strip() for name in os.environ.get(TRACKERS, "").split(",") if name.strip())
    return {"run.trackers": names} if names else {}


def _defaults() -> dict[str, Any]:
    return TrainConfig(model=ModelConfig(id="any")).model_dump(mode="json")


def _read_yaml(path: Path, problems: list[str]) -> dict[str, Any]:
    import yaml

    try:
        tree = yaml.safe_load(path.read_text())
    except OSError as error:
        problems.append(f"Unreadable file, {path}: {error.strerror}. Give an existing YAML file to --config.")
        return {}
    except yaml.YAMLError as error:
        problems.append(f"Not YAML, {path}: {' '.join(str(error).split())}. Correct that place.")
        return {}
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        problems.append(f"Not a mapping, {path}: {type(tree).__name__}. Write sections such as 'lora: {{rank: 8}}'.")
        return {}
    return dict(flatten(tree))


def _read_sets(sets: Sequence[str], problems: list[str]) -> dict[str, Any]:
    import yaml

    values: dict[str, Any] = {}
    for item in sets:
        key, equals, text = item.partition("=")
        if not equals or not key:
            problems.append(f"Not an assignment: --set {item}. Write --set section.key=value.")
            continue
        try:
            values[key] = yaml.safe_load(text) if text else ""
        except yaml.YAMLError:
            values[key] = text
    return values


def _problem(error: Any, values: Mapping[str, Any], origins: Mapping[str, str]) -> str:
    location = ".".join(str(part) for part in error["loc"])
    key = next((k for k in values if location == k or location.startswith(f"{k}.")), location)
    message = str(error["msg"]).removeprefix("Value error, ")
    if not location:
        return f"{message}."
    return f"Wrong value for '{key}': {values.get(key)!r} ({origins.get(key, 'default')}). {message}."
