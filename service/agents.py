"""Agents: a name for a model with a prompt, tools and sampling. `agent/<name>` is how the OpenAI wire names one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from service.backends.base import Sampling
from service.errors import NotFound, StartupError
from service.settings import Settings
from service.tools.base import Toolbox

PREFIX = "agent/"


class Agent(BaseModel):
    """One agent. `tools` None: all that are on offer."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str
    prompt: str = ""
    tools: tuple[str, ...] | None = None
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    seed: int | None = None
    max_tokens: int | None = Field(default=None, ge=1)

    def sampling(self) -> Sampling:
        """Its sampling, None where the model's own holds."""
        return Sampling(temperature=self.temperature, top_p=self.top_p, seed=self.seed, max_tokens=self.max_tokens)


class Agents:
    """The agents of a deployment; `default` is always there."""

    def __init__(self, settings: Settings, toolbox: Toolbox) -> None:
        """Raises StartupError for an agent that makes no sense."""
        self._toolbox = toolbox
        found: dict[str, Agent] = {"default": Agent(model=settings.model, prompt=settings.agent_prompt)}
        for name, fields in settings.agents.items():
            found[name] = _agent(name, fields, settings.model)
        self._agents: Mapping[str, Agent] = found

    def names(self) -> tuple[str, ...]:
        """Every agent's name."""
        return tuple(self._agents)

    def get(self, name: str) -> Agent:
        """The agent of that name. Raises NotFound."""
        agent = self._agents.get(name)
        if agent is None:
            raise NotFound(
                f"No such agent: {name[:100]}. There are: {', '.join(self._agents)}.",
                code="agent_not_found",
                param="agent",
            )
        return agent

    def tools(self, agent: Agent) -> tuple[str, ...]:
        """The names of the tools that the agent offers and that are there."""
        there = self._toolbox.names()
        return there if agent.tools is None else tuple(name for name in agent.tools if name in there)


def _agent(name: str, fields: Any, model: str) -> Agent:
    try:
        return Agent.model_validate({"model": model, **fields})
    except (ValidationError, TypeError) as error:
        first = error.errors()[0]["msg"] if isinstance(error, ValidationError) else "not an object"
        raise StartupError(
            f"Bad agent: AGENT_LOOP_AGENTS: {name}: {first}.", "See docs/service.md for its fields."
        ) from None
