"""`agent-loop deploy RUN`: make an exported and verified model the served one, and go back.

    deploy(package, target, say)     upload or copy, ask one question, only then switch
    rollback(target, say)            serve the previous model again

Until the new model has answered, nothing that is served changes. On Ollama each deployment is a tag of its own
(`agent-loop:3f2a91c07d1e`, from the file's digest), and the name that is served (`agent-loop`) is copied from it. For
the llama.cpp backend the file is copied into the state folder, so that cleaning runs does not take it away, and the
link `models/served.gguf` there is moved to it.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Protocol

import typer

from .command import RUNS, Output, reported
from .export import gguf, modelfile
from .export.cli import find_run
from .export.errors import DeployError, ExportError
from .export.llama import Llama
from .ollama import DEFAULT_URL, Ollama
from .served import Served, folder, read, write

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)

LINK = Path("models") / "served.gguf"
"""In the state folder: a link to the file that the llama.cpp backend is to serve."""
STARTED = "project.env"
"""In the state folder: what `agent-loop up` started last, where it ever did."""
QUESTION = "Hello! What can you do?"
Say = Callable[[str], None]


@dataclass(frozen=True)
class Package:
    """An exported file that passed its verification."""

    run: str
    path: Path
    digest: str
    kind: str
    modelfile: bool = True
    """Our TEMPLATE asks it as it was trained: a Gemma."""

    @classmethod
    def of(cls, run: Path, kind: str | None = None) -> Package:
        """The run's export of this kind (its first by default). Raises DeployError unless it is verified and intact."""
        report = run / "export" / "export.json"
        if not report.is_file():
            raise DeployError(f"The run is not exported, {run}. Run: agent-loop export {run}")
        facts: dict[str, Any] = json.loads(report.read_text())
        files = [f for f in facts["files"] if f["kind"] != "lora" and kind in (None, f["kind"])]
        if not files:
            raise DeployError(f"No {kind or 'merged'} file in the export, {report}. Run: agent-loop export {run}")
        chosen = files[0]
        if chosen["verification"]["problems"]:
            raise DeployError(f"The export failed its verification, {report}: {chosen['verification']['problems'][0]}")
        path = report.parent / chosen["file"]
        if not path.is_file() or gguf.digest(path) != chosen["digest"]:
            raise DeployError(f"The file is not the one that was verified, {path}. Export the run again.")
        return cls(facts["run"], path, chosen["digest"], chosen["kind"], facts.get("modelfile", True))

    @property
    def tag(self) -> str:
        """The first 12 digits of the digest."""
        return self.digest.removeprefix("sha256:")[:12]


class Target(Protocol):
    """Where a model is served."""

    backend: str

    def install(self, package: Package, say: Say) -> Served:
        """Make the model ready beside the served one, and ask it once."""
        ...

    def switch(self, served: Served) -> None:
        """Let the served name stand for it. Raises DeployError when it is not there any more."""
        ...


@dataclass(frozen=True)
class OllamaTarget:
    """A running Ollama; `name` is what the service asks for."""

    ollama: Ollama
    name: str
    backend = "ollama"

    def install(self, package: Package, say: Say) -> Served:
        """Upload, create, chat."""
        if not package.modelfile:
            raise DeployError(
                f"No Modelfile, {package.path.parent}: TEMPLATE is written for Gemma's turns. Write one and run ollama "
                "create, or use --to llamacpp."
            )
        model = f"{self.name}:{package.tag}"
        file = modelfile.for_context(package.path.name, modelfile.CONTEXT)
        sent = self.ollama.upload(package.path, package.digest)
        say(f"{'uploaded' if sent else 'already there'}: {package.path.name}")
        self.ollama.create(
            model,
            {package.path.name: package.digest},
            file.template,
            file.parameters(),
            lambda line: say(f"create: {line}"),
        )
        say(f"asked: {QUESTION} answered: {self.ollama.chat(model, QUESTION)}")
        return Served(model, package.digest, self.backend, run=package.run)

    def switch(self, served: Served) -> None:
        """Copy the deployment's tag to the served name."""
        if not self.ollama.has(served.model):
            raise DeployError(f"Ollama has no {served.model} any more, {self.ollama.url}. Deploy its run again.")
        self.ollama.copy(served.model, self.name)


@dataclass(frozen=True)
class LlamaTarget:
    """The service's own llama.cpp backend, which is started with the link to the served file."""

    name: str
    backend = "llamacpp"

    def install(self, package: Package, say: Say) -> Served:
        """Copy the file into the state folder and let llama.cpp answer from the copy."""
        path = folder() / "models" / f"{self.name}-{package.tag}.gguf"
        if not path.is_file() or gguf.digest(path) != package.digest:
            path.parent.mkdir(parents=True, exist_ok=True)
            part = path.with_name(path.name + ".part")
            shutil.copyfile(package.path, part)
            part.replace(path)
        say(f"copied: {path}")
        try:
            with Llama(path) as llama:
                answer = llama.chat([{"role": "user", "content": QUESTION}])
        except ExportError as error:
            raise DeployError(str(error)) from None
        if not answer.strip():
            raise DeployError(f"The model gave no answer to {QUESTION!r}, {path}.")
        say(f"asked: {QUESTION} answered: {answer}")
        return Served(self.name, package.digest, self.backend, path=str(path), run=package.run)

    def switch(self, served: Served) -> None:
        """Point the link that the service is started with at the file."""
        if served.path is None or not Path(served.path).is_file():
            raise DeployError(f"The file of the previous model is gone, {served.path}. Deploy its run again.")
        link = folder() / LINK
        part = link.with_name(f".{link.name}-{os.getpid()}")
        part.unlink(missing_ok=True)
        part.symlink_to(Path(served.path).name)  # relative: the folder may be mounted elsewhere
        part.replace(link)


def deploy(package: Package, target: Target, say: Say = print) -> Served:
    """Install, ask, switch, and write the record. Raises DeployError with the previous model still served."""
    before = _read()
    new = target.install(package, say)
    target.switch(new)
    if before and before.digest == new.digest and before.backend == new.backend:
        before = before.previous
    served = replace(new, previous=before)
    write(served)
    return served


def rollback(target_of: Callable[[Served], Target], say: Say = print) -> Served:
    """Serve the previous model again; what is served now becomes the previous one."""
    now = _read()
    if now is None or now.previous is None:
        raise DeployError(f"There is no previous model to go back to, {folder()}.")
    back = now.previous
    target_of(back).switch(back)
    served = replace(back, previous=replace(now, previous=None))
    write(served)
    say(f"Serving {served.model} of run {served.run} again.")
    return served


def _read() -> Served | None:
    try:
        return read()
    except ValueError as error:
        raise DeployError(str(error)) from None


@app.callback()
def _group() -> None:
    """Serve what a run trained."""


@app.command("deploy")
@reported
def deploy_command(
    run: Annotated[str | None, typer.Argument(help="A run's folder, or its id in --output.")] = None,
    output: Output = RUNS,
    to: Annotated[str, typer.Option(help="ollama, llamacpp, or auto: Ollama where one answers.")] = "auto",
    ollama: Annotated[str, typer.Option(envvar="OLLAMA_HOST", help="Ollama's address.")] = DEFAULT_URL,
    name: Annotated[str, typer.Option(help="The model name that the service asks for.")] = "agent-loop",
    gguf_kind: Annotated[str | None, typer.Option("--gguf", help="Which exported file; the first by default.")] = None,
    back: Annotated[bool, typer.Option("--rollback", help="Serve the previous model again.")] = False,
) -> None:
    """Make an exported run the served model: upload, ask once, switch. --rollback goes one step back."""
    if to not in ("auto", "ollama", "llamacpp"):
        raise typer.BadParameter(f"'{to}' is no target; use auto, ollama or llamacpp.")
    with Ollama(ollama) as client:
        if back:
            typer.echo(next_step(rollback(lambda served: _target(served.backend, client, name), typer.echo)))
            return
        if run is None:
            raise typer.BadParameter("Name the run to deploy, or give --rollback.")
        package = Package.of(find_run(run, output), gguf_kind)
        backend = to if to != "auto" else "ollama" if client.answers() else "llamacpp"
        if to == "auto":
            typer.echo(f"target: {backend} ({client.url} {'answers' if backend == 'ollama' else 'does not answer'})")
        served = deploy(package, _target(backend, client, name), typer.echo)
    before = f" Before: {served.previous.model} of run {served.previous.run}." if served.previous else ""
    typer.echo(next_step(served))
    typer.echo(f"Serving {served.model} of run {served.run}.{before} Back: agent-loop deploy --rollback")


def next_step(served: Served) -> str:
    """What lets the service answer with it: `up` where a stack was started with this state folder, else the server."""
    started = folder() / STARTED
    if started.is_file():
        said = dict(line.split("=", 1) for line in started.read_text().splitlines() if "=" in line)
        words = ["agent-loop", "up", *([said["MODE"]] if said.get("MODE", "dev") != "dev" else [])]
        words += [f"--{flag.lower()}" for flag in ("OFFLINE", "LOGS") if said.get(flag) == "1"]
        return f"Take it into the stack: {' '.join(words)}"
    model = served.model.partition(":")[0]  # on Ollama the tag is the deployment's own
    if served.backend != "llamacpp":
        return f"Start the service with it: AGENT_LOOP_MODEL={model} agent-loop serve"
    settings = f"AGENT_LOOP_BACKEND=llamacpp AGENT_LOOP_GGUF={folder() / LINK} AGENT_LOOP_MODEL={model}"
    return f"Start the service with it: {settings} agent-loop serve"


def _target(backend: str, client: Ollama, name: str) -> Target:
    return OllamaTarget(client, name) if backend == "ollama" else LlamaTarget(name)
