"""What a field may ask of BuildKit, and how several fields ask at once.

A field's function yields a list of needs and is resumed with a list of answers, or has the failure raised at
its `yield` (`relay` sees to that). `gather` runs several functions side by side: what all of them need in a
round is one list, and so one build.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .errors import FieldError

if TYPE_CHECKING:
    from .files.fs import Fs
    from .secrets import Secret
    from .values import Container, Directory, Step


@dataclass(frozen=True)
class Need:
    """Something that only a build can tell."""


@dataclass(frozen=True)
class Outcome(Need):
    """Run a step (and all before it); answer: its `Result`."""

    step: Step


@dataclass(frozen=True)
class Solve(Need):
    """Build a file system and nothing more; answer: None."""

    fs: Fs


@dataclass(frozen=True)
class Listing(Need):
    """Names and attributes of all that lies below a path, contents left out; answer: a `Tree`.

    `path` is followed through links; the answer's root is what lies there. `depth` limits how deep.
    """

    fs: Fs
    path: str
    depth: int | None = None


@dataclass(frozen=True)
class Pull(Need):
    """A path with all below it, contents included; answer: a `Tree`.

    A lone file is the tree's entry ``""``; where nothing is, that entry's kind is "other".
    """

    fs: Fs
    path: str


@dataclass(frozen=True)
class Look(Need):
    """What a path is; answer: the path it really has and its `Entry`, or None where nothing is."""

    fs: Fs
    path: str
    follow: bool = True


@dataclass(frozen=True)
class Ship(Need):
    """Build a container as an image and bring it somewhere; answer: the image's digest.

    `how`: "file" (an archive at `target`), "store" (the Docker image store, named `target`) or "push".
    """

    how: str
    container: Container
    target: str
    variants: tuple[Container, ...] = ()
    compression: str | None = None
    media_types: str = "OCIMediaTypes"


@dataclass(frozen=True)
class DockerBuild(Need):
    """Build somebody's own Dockerfile; answer: a `Container`."""

    context: Directory
    dockerfile: str
    platform: str
    target: str
    args: tuple[tuple[str, str], ...]
    secrets: tuple[Secret, ...]


Steps = Generator[list[Need], list[Any], Any]
"""The type of a field's function that needs something built."""


def gather(parts: Sequence[Steps], *, catch: bool = False) -> Generator[list[Need], list[Any], list[Any]]:
    """Run generators side by side; their results in order.

    The first failure is raised; with `catch` each failure (a FieldError) stands in the list as its part's result.
    """
    results: list[Any] = [None] * len(parts)
    waiting: dict[int, Any] = dict.fromkeys(range(len(parts)))
    while waiting:
        asked: list[tuple[int, list[Need]]] = []
        for i, answer in list(waiting.items()):
            try:
                needs = parts[i].send(answer)
            except StopIteration as done:
                results[i] = done.value
                del waiting[i]
            except FieldError as failed:
                if not catch:
                    raise
                results[i] = failed
                del waiting[i]
            else:
                asked.append((i, needs))
        if not asked:
            break
        answers = yield [need for _, needs in asked for need in needs]
        start = 0
        for i, needs in asked:
            waiting[i] = answers[start : start + len(needs)]
            start += len(needs)
    return results


def relay(steps: Steps) -> Steps:
    """Run one field's generator: pass its needs on, and raise at its `yield` what failed of them."""
    answers: Any = None
    failed: BaseException | None = None
    while True:
        try:
            needs = steps.throw(failed) if failed is not None else steps.send(answers)
        except StopIteration as done:
            return done.value
        answers = yield needs
        failed = next((a for a in answers if isinstance(a, BaseException)), None)
