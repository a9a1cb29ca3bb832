"""One stack: its mode, its files, its state folder, and the compose command line that speaks of it.

State that is neither a secret of the host nor a container's volume lies in one folder (`AGENT_LOOP_STATE`, by default
`state/` beside the compose files' repository): secrets, `images.env`, what a canary is at.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from ci.stack import container_engine, mounted, served
from ci.stack.errors import UsageError

ROOT = Path(__file__).resolve().parents[2]
COMPOSE = Path(__file__).resolve().parent / "compose"
MODES = ("dev", "prod", "train")
LOOKS = ("COMPOSE_ANSI", "COMPOSE_PARALLEL_LIMIT", "COMPOSE_PROGRESS")
"""What a person's shell may say to compose. Other variables of its own, such as COMPOSE_PROJECT_NAME, COMPOSE_PROFILES
or DOCKER_DEFAULT_PLATFORM, are meant for a project of theirs and would change what we start."""


def state_place() -> Path:
    """Where the folder that outlives the containers is, or will be."""
    return Path(os.environ.get("AGENT_LOOP_STATE") or ROOT / "state").absolute()


def state_folder() -> Path:
    """The folder that outlives the containers; made private on first use."""
    folder = state_place()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def name(mode: str = "dev") -> str:
    """The compose project's name, as the compose files take it: training is a project of its own."""
    if mode == "train":
        return os.environ.get("AGENT_LOOP_TRAIN_PROJECT") or "agent-loop-train"
    return os.environ.get("AGENT_LOOP_PROJECT") or "agent-loop"


@dataclass(frozen=True)
class Project:
    """What the wrapper knows of a stack before it speaks to compose."""

    mode: str = "dev"
    offline: bool = False
    gpu: bool = False
    logs: bool = False
    """Whether Loki and Alloy run too, so that logs can be searched in Grafana."""
    state: Path = field(default_factory=state_folder)

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise UsageError(f"No mode '{self.mode}'. Use one of {', '.join(MODES)}.")
        if self.logs and (self.offline or self.mode == "train"):
            why = "the training stack has none" if self.mode == "train" else "they exist only as registry images"
            raise UsageError(f"No Loki and Alloy (--logs) here: {why}. 'agent-loop logs' merges the logs.")

    @property
    def files(self) -> list[Path]:
        """The compose files of this mode, base first, a person's own last."""
        serving = ["compose.yaml", f"compose.{self.mode}.yaml"]
        names = {
            ("dev", False): serving,
            ("dev", True): [*serving, "compose.offline.yaml"],
            ("prod", False): serving,
            ("prod", True): [*serving, "compose.offline.yaml", "compose.prod.offline.yaml"],
            ("train", False): ["compose.train.yaml"],
            ("train", True): ["compose.train.yaml", "compose.train.offline.yaml"],
        }
        deployed = ["compose.served.yaml"] if self.mode != "train" and served.by_llamacpp(self.state) else []
        searched = ["compose.logs.yaml"] if self.logs else []
        own = [self.override] if self.override.is_file() else []
        return [*(COMPOSE / name for name in (*names[self.mode, self.offline], *deployed, *searched)), *own]

    @property
    def override(self) -> Path:
        """A person's own compose file, which comes last: other settings, other limits, further services."""
        return self.state / ("override.train.yaml" if self.mode == "train" else "override.yaml")

    @property
    def profiles(self) -> list[str]:
        """Offline takes none: whatever needs a registry has a profile. Nothing of the training side needs one."""
        if self.mode == "train" or self.offline:
            return []
        return ["gpu" if self.gpu else "cpu", *(["logs"] if self.logs else [])]

    @property
    def images_env(self) -> Path:
        """The file that names our images by digest."""
        return self.state / "images.env"

    def environment(self) -> dict[str, str]:
        """Every setting, as compose interpolates it and the wrapper reads it.

        The person's variables win over what commands recorded, and that over the person's file of settings.
        """
        recorded = (
            read_env(self.state / "settings.env") | read_env(self.images_env) | read_env(self.state / served.CHOSEN)
        )
        recorded |= served.environment(self.state)
        limits = processors() if self.mode == "train" else {}
        store = self.state / "secrets" / "database_url"
        if store.is_file() and store.stat().st_size:  # else the run store is SQLite's, in the agent's own volume
            recorded["AGENT_LOOP_DATABASE_SECRET"] = "/run/secrets/database_url"  # noqa: S105 - a place
            recorded["AGENT_LOOP_DATABASE_GIVEN"] = str(store.stat().st_mtime_ns)
        own = {"AGENT_LOOP_STATE": str(self.state), "AGENT_LOOP_MODE": self.mode}
        # Newer versions of compose read a .env of the folder that the person happens to stand in.
        own["COMPOSE_DISABLE_ENV_FILE"] = "1"
        given = {**limits, **recorded, **os.environ, **mounted.environment(ROOT / "observability"), **own}
        given = {name: value for name, value in given.items() if name in own or not _of_others(name)}
        if self.logs:
            given.setdefault("AGENT_LOOP_CONTAINER_LOGS", container_logs())
        return {"PUBLIC_URL": public_url(given), **given}

    def command(self, *words: str, more: Sequence[Path] = ()) -> list[str]:
        """The docker compose command line for this project, with further compose files."""
        files = [word for path in (*self.files, *more) for word in ("--file", str(path))]
        profiles = [word for name in self.profiles for word in ("--profile", name)]
        return ["docker", "compose", *files, *profiles, *words]

    def compose(
        self,
        *words: str,
        capture: bool = False,
        more: Sequence[Path] = (),
        given: str | None = None,
        assumed: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run compose; output goes to the terminal unless captured, `given` goes to its standard input, `assumed` are
        variables for where none is set.

        Never raises for an exit status.
        """
        return subprocess.run(
            self.command(*words, more=more),
            env={**(assumed or {}), **self.environment()},
            text=True,
            capture_output=capture,
            input=given,
            check=False,
        )


def _of_others(variable: str) -> bool:
    """Whether a variable tells compose of another project than this."""
    return variable == "DOCKER_DEFAULT_PLATFORM" or (variable.startswith("COMPOSE_") and variable not in LOOKS)


def server_names(settings: Mapping[str, str]) -> list[str]:
    """The domains that production answers to, the first in links."""
    return settings.get("SERVER_NAME", "").split() or ["localhost"]


def public_url(settings: Mapping[str, str]) -> str:
    """Where a browser finds production when nothing else stands in front of it."""
    port = settings.get("HTTPS_PORT") or "443"
    return f"https://{server_names(settings)[0]}{'' if port == '443' else f':{port}'}"


@cache
def container_logs() -> str:
    """The folder in which the engine keeps each container's log file."""
    found = container_engine.answers()
    return f"{found.data_root if found else container_engine.Engine.data_root}/containers"


def processors() -> dict[str, str]:
    """The training stack's shares of the processors; the engine refuses a limit above what is there."""
    here = float(os.cpu_count() or 1)
    return {"TRAINING_CPUS": str(min(8.0, here)), "JUPYTER_CPUS": str(min(4.0, here))}


def read_env(path: Path) -> dict[str, str]:
    """The NAME=value lines of a file, or nothing when it is not there."""
    if not path.is_file():
        return {}
    lines = (line.strip() for line in path.read_text().splitlines())
    return dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))


def write_env(path: Path, values: Mapping[str, str], comment: str) -> None:
    """Write NAME=value lines atomically, sorted, under a comment."""
    text = f"# {comment}\n" + "".join(f"{name}={values[name]}\n" for name in sorted(values))
    draft = path.with_suffix(".tmp")
    draft.write_text(text)
    draft.replace(path)


def remembered(state: Path, train: bool = False) -> Project:
    """The project as `up` last started it, so that `down`, `ps` and `logs` speak of the same containers."""
    values = read_env(state / _memory(train))
    return Project(
        mode="train" if train else values.get("MODE", "dev"),
        offline=values.get("OFFLINE") == "1",
        gpu=values.get("GPU") == "1",
        logs=values.get("LOGS") == "1",
        state=state,
    )


def remember(project: Project) -> None:
    """Write down what `up` starts."""
    flags = {"OFFLINE": project.offline, "GPU": project.gpu, "LOGS": project.logs}
    values = {"MODE": project.mode, **{name: str(int(on)) for name, on in flags.items()}}
    write_env(project.state / _memory(project.mode == "train"), values, "What 'agent-loop up' started last.")


def was_started(project: Project) -> bool:
    """Whether `up` ever started this stack with this state folder."""
    return (project.state / _memory(project.mode == "train")).is_file()


def remember_model(state: Path, model: str) -> None:
    """Keep the model for this and every later start, until another is chosen or deployed."""
    write_env(
        state / served.CHOSEN, {"AGENT_LOOP_MODEL": model}, "Chosen by 'agent-loop model use'; the environment wins."
    )


def _memory(train: bool) -> str:
    return "train.env" if train else "project.env"
