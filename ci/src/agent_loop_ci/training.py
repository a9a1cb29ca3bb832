"""One training run inside the training image."""

from __future__ import annotations

import re
from dataclasses import dataclass

import dagger

from agent_loop_ci import caches, environment
from agent_loop_ci.bases import TRAINER_UID, owner
from agent_loop_ci.errors import BadArgument

DATA = "/data/train.jsonl"

_RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

# The run is written into the checkpoint cache, which outlives the step, so that an interrupted run can go on; what
# belongs to a result is then copied out, since a cache cannot be read from outside.
_COPY = "import shutil, sys; shutil.copytree(sys.argv[1], sys.argv[2], ignore=shutil.ignore_patterns('checkpoints'))"


@dataclass(frozen=True)
class Run:
    """What to train, on what, and how."""

    identity: str
    """Names the run's folder in the checkpoint cache: the same identity goes on where it stopped."""
    call: str
    """Another text for each call: without it the engine would take the last call's result for this one's."""
    model: str
    data: dagger.File | None = None
    """A JSONL file; none: the trainer's own example."""
    hub_token: dagger.Secret | None = None
    gpu: bool = False
    options: tuple[str, ...] = ()
    """Further words for `python -m trainer train`."""

    def __post_init__(self) -> None:
        if not _RUN_ID.fullmatch(self.identity):
            raise BadArgument(
                f"Not a run id: '{self.identity}'. Use letters, digits, dot, dash, underscore; 64 at most."
            )
        if not self.model or self.model.startswith("-"):
            raise BadArgument(f"Not a model: '{self.model}'. Name a preset, a hub id or a folder.")


def command(run: Run) -> list[str]:
    """The trainer's command line."""
    words = [environment.PYTHON, "-m", "trainer", "train", "--model", run.model]
    if run.data is not None:
        words += ["--data", DATA]
    return [*words, "--output", "/checkpoints", "--run-id", run.identity, *run.options]


def trained(image: dagger.Container, run: Run) -> dagger.Directory:
    """The run's folder: adapter, metrics, plots, the GGUF if one was asked for; without its checkpoints."""
    user = owner(TRAINER_UID)
    container = caches.checkpoints(caches.hugging_face(image, user), user)
    if run.data is not None:
        container = container.with_mounted_file(DATA, run.data)
    if run.hub_token is not None:
        container = container.with_secret_variable("HF_TOKEN", run.hub_token)
    if run.gpu:
        container = container.experimental_with_all_gp_us()
    return (
        container.with_env_variable("AGENT_LOOP_RUN", run.identity)
        .with_env_variable("AGENT_LOOP_CALL", run.call)
        .with_exec(command(run))
        .with_exec([environment.PYTHON, "-c", _COPY, f"/checkpoints/{run.identity}", "/runs/result"])
        .directory("/runs/result")
    )
