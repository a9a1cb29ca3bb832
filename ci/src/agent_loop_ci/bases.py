"""The base images, pinned by tag and digest: one reference a line, in a form that a dependency bot reads.

renovate.json names this file; the bot changes tag and digest together.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Base:
    """An image that stages start from."""

    address: str
    """`registry/name:tag@sha256:…`."""
    interpreter: str = "python3"
    """The Python to make environments with, looked up on the base's own PATH.

    The official image has it in /usr/local/bin, a base made of Debian packages in /usr/bin. An environment links
    to where it was found, and the final stage starts from the very same base, so the link holds in both.
    """

    @property
    def name(self) -> str:
        """The reference without its digest."""
        return self.address.partition("@")[0]

    @property
    def digest(self) -> str:
        """`sha256:…`, or an empty string where the reference has none."""
        return self.address.partition("@")[2]


PYTHON = Base(
    "docker.io/library/python:3.13-slim-trixie@sha256:9d2e5553305c7c7b0097999bb17187c69b921ccd6bc9d40e4bb5ebe652c00285"
)

UID = 10001
"""Numeric user and group of every image but the training image: no base has it, so it owns nothing by accident."""

TRAINER_UID = 1000
"""User `trainer` of the training image: the usual first user of a workstation, so mounted folders are writable."""


def owner(uid: int) -> str:
    """`uid:gid`, as users and owners are written."""
    return f"{uid}:{uid}"
