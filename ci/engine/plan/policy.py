"""Checks the plans of a module's functions against the policies. Pure but for the planning that it is handed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from .image import Image
from .planner import Planned
from .rules import RULES
from .settings import Settings, Silence


@dataclass(frozen=True)
class Finding:
    """A policy that does not hold; `silenced` where the project says why that is right."""

    function: str
    rule: str
    message: str
    silenced: Silence | None = None

    def __str__(self) -> str:
        reason = f" (silenced: {self.silenced.reason})" if self.silenced else ""
        return f"{self.function}: {self.rule}: {self.message}{reason}"


def images(planned: Planned) -> Iterator[Image]:
    """What a plan's function makes, each under the function's name."""
    function = planned.function.split()[0]
    for name, number in planned.graph.results.items():
        yield Image.of(function, name, planned.graph, number)
    if not planned.graph.results:  # a function that only asks: what it asked about is still built
        for asked in planned.asked:
            yield Image.of(function, f"{function} (asks {asked.field})", planned.graph, asked.step)


def check(planned: Planned, settings: Settings) -> list[Finding]:
    """Everything that the policies have to say about one plan, without repetitions."""
    found: dict[Finding, None] = {}
    for image in images(planned):
        container = planned.graph.steps[image.number].type == "Container" and bool(planned.graph.results)
        for policy in RULES.values():
            if settings.rules and policy.name not in settings.rules:
                continue
            if policy.images_only and not container:
                continue
            for message in policy.rule(image, settings):
                silence = next((s for s in settings.silences if s.covers(policy.name, image.function)), None)
                found[Finding(image.name, policy.name, message, silence)] = None
    return list(found)


def unused(silences: Iterable[Silence], findings: Iterable[Finding]) -> list[Silence]:
    """Silences that nothing needed: the reason they were written for is gone."""
    used = {f.silenced for f in findings}
    return [s for s in silences if s not in used]
