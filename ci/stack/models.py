"""The served model on Ollama's volume: whether it has to be pulled, and pulling it."""

from __future__ import annotations

from ci.stack import machine, networks, project, served
from ci.stack.errors import StackError, UsageError
from ci.stack.project import Project
from ci.stack.wanted import Wanted


def served_name(stack: Project) -> str:
    """The model that the service asks for."""
    return stack.environment().get("AGENT_LOOP_MODEL") or Wanted.model


def missing(stack: Project) -> str | None:
    """The served model, where a running Ollama of the stack lacks it; None where nothing has to be pulled.

    What `deploy` served is ours and in no registry; another backend, or an Ollama of the person's own, has its models
    elsewhere.
    """
    settings = stack.environment()
    elsewhere = (settings.get("AGENT_LOOP_BACKEND") or "ollama") != "ollama" or settings.get("AGENT_LOOP_OLLAMA_URL")
    if stack.mode == "train" or stack.offline or elsewhere or served.environment(stack.state):
        return None
    model = served_name(stack)
    return None if machine.model_present(project.name(stack.mode), model) else model


def pull(stack: Project, model: str) -> None:
    """Pull a model with progress: a job with a server of its own on the model volume and the only way out.

    Raises UsageError offline, StackError when the pull fails.
    """
    if stack.offline:
        raise UsageError(
            f"Cannot pull '{model}': the stack runs offline. Start it with a registry in reach: agent-loop up"
        )
    words = ("--profile", "init", "run", "--rm", "-e", f"MODEL={model}", "ollama-pull")
    if networks.launch(stack, *words) != 0:
        raise StackError(f"Pulling '{model}' failed, see above. Check the name at ollama.com/library and the network.")
