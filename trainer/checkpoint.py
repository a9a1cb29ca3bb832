"""The state of a run on disk: written whole or not at all, checked when read, the newest few kept.

    checkpoints/step-0000120/adapter_model.safetensors, adapter_config.json   the adapter, as PEFT reads it
                             optimizer.pt                                     moments and settings
                             rng.pt                                           Python, NumPy, torch, CUDA, each process
                             state.json                                       `State`, configuration, data, versions
                             manifest.json                                    sha256 and size of each of these files
    checkpoints/latest -> step-0000120

A folder is written under another name, synced to the disk, and renamed. A backup is the same folder written by the
same function somewhere else, so what restores one restores the other: copy the folder back.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import platform
import shutil
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from .config import changed
from .errors import CheckpointError, DiskFull, RunChanged
from .settings import TrainConfig

MANIFEST = "manifest.json"
PACKAGES = ("torch", "transformers", "peft", "bitsandbytes")
"""Packages whose version changes the numbers."""


@dataclass
class State:
    """All a resume needs besides weights, moments and random states. Changed by the loop, step by step."""

    step: int = 0
    """Optimizer steps done."""
    epoch: int = 0
    position: int = 0
    """Sequences of this epoch's order that are used up."""
    micro: int = 0
    """Sequences a micro-batch, smaller than planned after running out of memory."""
    level: str = ""
    """What layers recompute where running out of memory raised it above the plan's."""
    tokens: int = 0
    seconds: float = 0.0
    best_loss: float | None = None
    best_step: int = 0
    bad_evals: int = 0
    losses: list[float] = field(default_factory=list)
    """The last accepted losses, which the guard compares with."""
    skipped: list[int] = field(default_factory=list)
    """Steps whose batch the guard leaves out."""
    rollbacks: int = 0
    stopped_early: bool = False


@dataclass(frozen=True)
class Identity:
    """What a run must share with its checkpoint to be the same run."""

    config: TrainConfig
    data_digest: str
    data_file: str
    processes: int = 1
    versions: Mapping[str, str] = field(default_factory=lambda: versions())


@dataclass(frozen=True)
class Loaded:
    """A checkpoint in memory. `notes` says which newer ones were left aside, and why."""

    folder: Path
    adapter: Mapping[str, Any]
    optimizer: Mapping[str, Any]
    rng: Sequence[Mapping[str, Any]]
    state: State
    notes: tuple[str, ...]


def versions() -> dict[str, str]:
    """The versions of Python and of the packages that change the numbers."""
    from importlib.metadata import version

    return {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}


def save(
    root: Path,
    state: State,
    identity: Identity,
    *,
    adapter: Mapping[str, Any],
    adapter_config: str,
    optimizer: Mapping[str, Any],
    rng: Sequence[Mapping[str, Any]],
) -> Path:
    """Write a checkpoint of `state` under `root` and return its folder. Raises DiskFull; older ones stay."""
    import torch
    from safetensors.torch import save as to_bytes

    name = f"step-{state.step:07d}"
    record = {
        "state": asdict(state),
        "config": identity.config.model_dump(mode="json"),
        "data": {"digest": identity.data_digest, "file": identity.data_file},
        "processes": identity.processes,
        "versions": dict(identity.versions),
    }
    with _whole_or_nothing(root, name) as folder:
        weights = {k: v.detach().cpu().contiguous() for k, v in adapter.items()}
        (folder / "adapter_model.safetensors").write_bytes(to_bytes(weights, metadata={"format": "pt"}))
        (folder / "adapter_config.json").write_text(adapter_config)
        torch.save(dict(optimizer), folder / "optimizer.pt")
        torch.save(list(rng), folder / "rng.pt")
        (folder / "state.json").write_text(json.dumps(record, indent=2) + "\n")
    _point_latest(root, name)
    return root / name


def load(root: Path, device: str = "cpu") -> Loaded | None:
    """The newest intact checkpoint under `root`; None where there is none at all.

    A damaged one is passed over and named in `notes`. Raises CheckpointError when all are damaged.
    """
    import torch
    from safetensors.torch import load_file

    notes: list[str] = []
    for folder in reversed(folders(root)):
        problems = verify(folder)
        if problems:
            notes.append(f"Damaged checkpoint, {folder.name}: {problems[0]}. Falling back to the one before.")
            continue
        record = json.loads((folder / "state.json").read_text())
        return Loaded(
            folder,
            load_file(folder / "adapter_model.safetensors", device=device),
            torch.load(folder / "optimizer.pt", map_location=device, weights_only=True),
            torch.load(folder / "rng.pt", map_location="cpu", weights_only=True),
            State(**record["state"]),
            tuple(notes),
        )
    if notes:
        raise CheckpointError(
            f"No readable checkpoint, {root}: all {len(notes)} are damaged. Restore one from a backup "
            "(agent-loop backup restore --what checkpoints), or start again under another --run-id."
        )
    return None


def differences(folder: Path, identity: Identity) -> list[str]:
    """What differs between a checkpoint and the run that would resume it: `name: old -> new`."""
    record = json.loads((folder / "state.json").read_text())
    out = changed(TrainConfig.model_validate(record["config"]), identity.config)
    if record["data"]["digest"] != identity.data_digest:
        old, new = record["data"]["file"][:12], identity.data_file[:12]
        out.append(f"data: file sha256 {old} -> {new}" if old != new else "data: the same file, prepared differently")
    if record["processes"] != identity.processes:
        out.append(f"processes: {record['processes']} -> {identity.processes}")
    old_versions = record["versions"]
    out += [f"{k}: {old_versions.get(k)} -> {v}" for k, v in identity.versions.items() if old_versions.get(k) != v]
    return out


def check_same_run(folder: Path, identity: Identity, *, force: bool) -> list[str]:
    """Refuse to resume a run that became another; with `force`, return the differences instead."""
    found = differences(folder, identity)
    if found and not force:
        raise RunChanged(
            f"Not the same run as {folder.name}: {'; '.join(found)}. Undo the change (--resume RUN takes the run's own "
            "settings), use another --run-id, or --force-resume to go on (the result then matches neither)."
        )
    return found


def folders(root: Path) -> list[Path]:
    """All checkpoints under `root`, oldest first; unfinished ones are not listed."""
    return sorted(p for p in root.glob("step-*") if p.is_dir() and not p.is_symlink())


def verify(folder: Path) -> list[str]:
    """What is wrong with a checkpoint's files; empty when all are as written."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
    except (OSError, ValueError):
        return [f"{MANIFEST} is missing or unreadable"]
    problems: list[str] = []
    for name, entry in manifest["files"].items():
        path = folder / name
        if not path.is_file():
            problems.append(f"{name} is missing")
        elif path.stat().st_size != entry["bytes"] or _sha256(path) != entry["sha256"]:
            problems.append(f"{name} differs from its sha256")
    return problems


def prune(root: Path, keep: int, best_step: int | None) -> list[Path]:
    """Delete all but the newest `keep` and the best; return what was deleted."""
    doomed = [f for f in folders(root)[:-keep] if best_step is None or f.name != f"step-{best_step:07d}"]
    for folder in doomed:
        shutil.rmtree(folder)
    return doomed


def clean_unfinished(root: Path) -> None:
    """Delete what an interrupted write left behind."""
    for path in root.glob(".unfinished-*"):
        if path.is_symlink():
            path.unlink()
        else:
            shutil.rmtree(path, ignore_errors=True)


def publish(source: Path, adapter: Path) -> None:
    """Put a checkpoint's adapter where exports and PEFT look for it."""
    adapter.mkdir(exist_ok=True)
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        temporary = adapter / f".{name}"
        temporary.write_bytes((source / name).read_bytes())
        temporary.replace(adapter / name)


@contextmanager
def _whole_or_nothing(root: Path, name: str) -> Generator[Path]:
    """A folder to fill; at the end it gets its manifest, is synced and takes its name in one rename."""
    temporary = root / f".unfinished-{name}-{os.getpid()}"
    try:
        root.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        yield temporary
        files = sorted(p for p in temporary.iterdir())
        entries = {p.name: {"sha256": _sha256(p), "bytes": p.stat().st_size} for p in files}
        (temporary / MANIFEST).write_text(json.dumps({"version": 1, "files": entries}, indent=2) + "\n")
        for path in (*files, temporary / MANIFEST, temporary):
            _sync(path)
        old = root / f".unfinished-replaced-{name}"
        if (root / name).exists():  # the same step again, after a roll-back
            (root / name).rename(old)
        temporary.rename(root / name)
        _sync(root)
        shutil.rmtree(old, ignore_errors=True)
    except BaseException as error:
        shutil.rmtree(temporary, ignore_errors=True)
        # torch wraps the system's error in one of its own
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        if full or (isinstance(error, RuntimeError) and "write failed" in str(error) and _nearly_full(root)):
            free = shutil.disk_usage(root).free if root.exists() else 0
            raise DiskFull(
                f"Disk full at checkpoint {name}, {root}: {free >> 20} MiB free. The checkpoint before is intact: free "
                "space and run the same command to go on from it."
            ) from error
        raise


def _nearly_full(root: Path) -> bool:
    return shutil.disk_usage(root).free < 64 << 20


def _point_latest(root: Path, name: str) -> None:
    link = root / f".unfinished-latest-{os.getpid()}"
    link.unlink(missing_ok=True)
    link.symlink_to(name)
    if (root / "latest").is_dir() and not (root / "latest").is_symlink():
        shutil.rmtree(root / "latest")  # a copy that followed the link, such as a restored backup
    link.replace(root / "latest")


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
