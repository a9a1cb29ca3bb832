"""Answers what fields need from BuildKit."""

from __future__ import annotations

import platform as host_platform
from typing import TYPE_CHECKING, Any

from .needs import Need
from .tree import Tree

if TYPE_CHECKING:
    from .session import Session

MACHINES = {"x86_64": "linux/amd64", "amd64": "linux/amd64", "aarch64": "linux/arm64", "arm64": "linux/arm64"}


class Builder:
    """One per session."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.trees: dict[str, Tree] = {}
        """Static file systems that were worked out, by key."""
        self.platform = MACHINES.get(host_platform.machine(), f"linux/{host_platform.machine()}")

    def answer(self, needs: list[Need]) -> list[Any]:
        """One answer per need; a need that failed has its error as answer."""
        raise NotImplementedError

    def close(self) -> None:
        """End what runs."""
