"""What each function reads of the repository: allow-lists, so that nothing else can change its result.

The first pattern ignores everything, the next ones re-admit; the last keep caches of the host out. Dagger applies
them to a folder given by hand (`--source`) as well.
"""

from __future__ import annotations

from typing import Annotated

import dagger
from dagger import DefaultPath, Doc, Ignore

UV = "requirements/uv.txt"
SERVICE = ("service/**", "requirements/service.txt", UV)
TRAINER = ("trainer/**", "requirements/trainer.txt", "requirements/tracking.txt", UV)
OPS = ("observability/**", "requirements/ops.txt", UV)
TESTED = (
    *("ci/**", "service/**", "observability/**", "tests/**", "docs/**", "trainer/**", "models/**"),
    *("requirements/**", ".github/**", "README.md", "Makefile", "pyproject.toml", "dagger.json"),
)
LINTED = ("**/*.py", "pyproject.toml", "requirements/dev.txt", UV)

_NEVER = ("**/__pycache__", "**/*.pyc", "**/.venv", "**/node_modules", "ci/sdk")


def only(*patterns: str) -> Ignore:
    """An Ignore that admits these patterns and nothing else."""
    return Ignore(["**", *(f"!{pattern}" for pattern in patterns), *_NEVER])


_ABOUT = Doc("the repository; only what this function reads of it is uploaded")

ServiceSource = Annotated[dagger.Directory, DefaultPath("/"), only(*SERVICE), _ABOUT]
TrainerSource = Annotated[dagger.Directory, DefaultPath("/"), only(*TRAINER), _ABOUT]
OpsSource = Annotated[dagger.Directory, DefaultPath("/"), only(*OPS), _ABOUT]
ImagesSource = Annotated[dagger.Directory, DefaultPath("/"), only(*SERVICE, *TRAINER, *OPS), _ABOUT]
TestedSource = Annotated[dagger.Directory, DefaultPath("/"), only(*TESTED), _ABOUT]
LintedSource = Annotated[dagger.Directory, DefaultPath("/"), only(*LINTED), _ABOUT]
