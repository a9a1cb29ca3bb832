"""`agent-loop models list|register|promote`: versions of trained models on MLflow's registry.

    register(run, name)              a version from a finished, exported and verified run
    promote(name, version, alias)    let an alias such as `production` name this version
    versions(name)                   what there is

A version carries what it came from: hash of the data, every setting, the run's figures and the export's. The server
is `$MLFLOW_TRACKING_URI`, by default the SQLite file beside the runs that training logs to.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .command import RUNS, Output, reported
from .export.cli import find_run
from .export.errors import RegistryError

if TYPE_CHECKING:
    from mlflow import MlflowClient

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)
models_app = typer.Typer(no_args_is_help=True, help="Versions of trained models (MLflow).")
app.add_typer(models_app, name="models")

NAME = "agent-loop"
ALIAS = "production"


@dataclass(frozen=True)
class Version:
    """A registered version; `tags` as registered (run, data_sha256, base, verified, files)."""

    name: str
    number: int
    aliases: tuple[str, ...]
    source: str
    tags: dict[str, str]


def register(run: Path, name: str = NAME) -> Version:
    """Register the run's export. Raises RegistryError unless it finished, was exported and passed."""
    facts = _facts(run)
    client = _client(run.parent)
    from mlflow.exceptions import MlflowException

    try:
        run_id = _mlflow_run(client, run, facts)
        if not _known(client, name):
            client.create_registered_model(name, description="Models trained by agent-loop train.")
        made = client.create_model_version(
            name,
            source=_source(client, run, run_id),
            run_id=run_id,
            tags=facts["tags"],
            description=f"{facts['tags']['base']}, data sha256 {facts['tags']['data_sha256'][:12]}",
        )
    except MlflowException as error:
        raise RegistryError(f"MLflow refused: {_first_line(error)}. Check MLFLOW_TRACKING_URI.") from None
    return _version(client, name, made.version)


def promote(output: Path, name: str, version: int, alias: str = ALIAS) -> tuple[Version, int | None]:
    """Point `alias` at a version; returns it and the version that held the alias before."""
    client = _client(output)
    from mlflow.exceptions import MlflowException

    try:
        before = next((v.number for v in _versions(client, name) if alias in v.aliases), None)
        client.set_registered_model_alias(name, alias, str(version))
        return _version(client, name, version), before
    except MlflowException as error:
        raise RegistryError(
            f"Cannot promote {name} {version}: {_first_line(error)}. See: agent-loop models list"
        ) from None


def versions(output: Path, name: str = NAME) -> list[Version]:
    """All versions of the model, newest first; none where it is not registered."""
    client = _client(output)
    return list(_versions(client, name)) if _known(client, name) else []


def _facts(run: Path) -> dict[str, Any]:
    """What a version says about the run: tags (strings), metrics (numbers), parameters (settings)."""
    from . import config

    report = run / "export" / "export.json"
    if not report.is_file():
        raise RegistryError(f"The run is not exported, {run}. Run: agent-loop export {run}")
    export: dict[str, Any] = json.loads(report.read_text())
    if not export["verified"]:
        raise RegistryError(f"The export failed its verification, {report}. Only verified models are registered.")
    state_file = run / "checkpoints" / "latest" / "state.json"
    if not state_file.is_file():
        raise RegistryError(f"No checkpoint to read the data's hash from, {state_file.parent}. Keep one of the run.")
    state: dict[str, Any] = json.loads(state_file.read_text())
    settings = config.load(run / "config.json").config
    metrics = {key: float(value) for key, value in _last_metrics(run).items()}
    for file in export["files"]:
        found = file["verification"]
        metrics[f"export.{file['kind']}.agreement"] = found["agreement"]
        metrics[f"export.{file['kind']}.mean_divergence"] = found["mean_divergence"]
    tags = {
        "run": run.resolve().name,
        "base": settings.model.id,
        "data_sha256": state["data"]["file"],
        "rows_sha256": state["data"]["digest"],
        "steps": str(state["state"]["step"]),
        "verified": "true",
        "files": json.dumps({f["kind"]: f["digest"] for f in export["files"]}),
    }
    return {"tags": tags, "metrics": metrics, "parameters": dict(config.flatten(settings.model_dump(mode="json")))}


def _last_metrics(run: Path) -> dict[str, Any]:
    """The last value of each figure in metrics.jsonl."""
    path = run / "metrics.jsonl"
    last: dict[str, Any] = {}
    for line in path.read_text().splitlines() if path.is_file() else ():
        last |= json.loads(line)
    return {
        key: last[key]
        for key in ("step", "loss", "eval_loss", "tokens", "peak_memory_gib")
        if last.get(key) is not None
    }


def _mlflow_run(client: MlflowClient, run: Path, facts: dict[str, Any]) -> str:
    """The MLflow run that training logged to, or one made now, with the export's figures added."""
    kept = run / "mlflow-run-id"
    if kept.is_file():
        run_id = kept.read_text().strip()
    else:
        experiment = client.get_experiment_by_name(NAME)
        where = experiment.experiment_id if experiment else client.create_experiment(NAME)
        run_id = client.create_run(where, run_name=run.resolve().name).info.run_id
        for key, value in facts["parameters"].items():
            client.log_param(run_id, key, value)
        client.set_terminated(run_id)
        kept.write_text(run_id + "\n")
    for key, value in facts["metrics"].items():
        client.log_metric(run_id, key, value)
    for key, value in facts["tags"].items():
        client.set_tag(run_id, key, value)
    return run_id


def _source(client: MlflowClient, run: Path, run_id: str) -> str:
    """Where the version's files are: the export folder itself, or its upload on a server elsewhere."""
    export = (run / "export").resolve()
    if not str(client.tracking_uri).startswith("http"):
        return export.as_uri()
    for path in sorted(export.iterdir()):
        if path.is_file() and not path.name.endswith(".failed"):
            client.log_artifact(run_id, str(path), "export")
    return f"{client.get_run(run_id).info.artifact_uri}/export"


def _client(output: Path) -> MlflowClient:
    try:
        from mlflow import MlflowClient
    except ModuleNotFoundError:
        raise RegistryError("mlflow is not installed. Install the extra: pip install 'agent-loop[trainer]'") from None
    return MlflowClient(os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{output.resolve() / 'mlflow.db'}")


def _known(client: MlflowClient, name: str) -> bool:
    return any(model.name == name for model in client.search_registered_models(f"name='{name}'"))


def _versions(client: MlflowClient, name: str) -> Iterator[Version]:
    for found in sorted(client.search_model_versions(f"name='{name}'"), key=lambda v: -int(v.version)):
        yield _version(client, name, int(found.version))


def _version(client: MlflowClient, name: str, number: int | str) -> Version:
    found = client.get_model_version(name, str(number))
    tags = {key: str(value) for key, value in found.tags.items()}
    return Version(name, int(found.version), tuple(sorted(found.aliases)), str(found.source), tags)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


Name = Annotated[str, typer.Option("--name", help="The model's name in the registry.")]


@models_app.command("list")
@reported
def list_command(output: Output = RUNS, name: Name = NAME) -> None:
    """List the versions, newest first, with their aliases, run, data and files."""
    found = versions(output, name)
    if not found:
        typer.echo(f"No versions of {name}. Register one: agent-loop models register RUN")
    for version in found:
        tags = version.tags
        aliases = f" [{', '.join(version.aliases)}]" if version.aliases else ""
        data, kinds = tags.get("data_sha256", "?")[:12], ", ".join(json.loads(tags.get("files", "{}")))
        typer.echo(
            f"{version.number:>4}{aliases}  run {tags.get('run')}  base {tags.get('base')}  data {data}  {kinds}"
        )


@models_app.command("register")
@reported
def register_command(
    run: Annotated[str, typer.Argument(help="A run's folder, or its id in --output.")],
    output: Output = RUNS,
    name: Name = NAME,
) -> None:
    """Register an exported and verified run as a new version."""
    version = register(find_run(run, output), name)
    typer.echo(f"Registered {name} version {version.number}. Next: agent-loop models promote {version.number}")


@models_app.command("promote")
@reported
def promote_command(
    version: Annotated[int, typer.Argument(help="The version's number.")],
    output: Output = RUNS,
    name: Name = NAME,
    alias: Annotated[str, typer.Option(help="The alias to move.")] = ALIAS,
) -> None:
    """Point an alias (production) at a version."""
    promoted, before = promote(output, name, version, alias)
    was = f" It was version {before}." if before is not None and before != promoted.number else ""
    typer.echo(f"{alias} is now {name} version {promoted.number}.{was}")
