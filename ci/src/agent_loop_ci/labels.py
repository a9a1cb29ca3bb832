"""What an image says about itself: OCI labels and the health check.

Keys: OCI Image Format Specification, "Pre-Defined Annotation Keys".
"""

from __future__ import annotations

from dataclasses import dataclass

import dagger

from agent_loop_ci.bases import Base

SOURCE = "https://github.com/agent-loop/agent-loop"


@dataclass(frozen=True)
class Release:
    """What the labels say of the commit that is built."""

    revision: str = "unknown"
    """The commit's full hash."""
    created: str = "1970-01-01T00:00:00Z"
    """The commit's time, RFC 3339: the build's own time would make every image another one."""
    version: str = "0.1.0"


def labelled(container: dagger.Container, title: str, base: Base, release: Release) -> dagger.Container:
    """Set the labels; the last step of a stage, since they change with every commit and rebuild what follows."""
    labels = {
        "source": SOURCE,
        "licenses": "MIT",
        "title": title,
        "base.name": base.name,
        "base.digest": base.digest,
        "version": release.version,
        "revision": release.revision,
        "created": release.created,
    }
    for key, value in labels.items():
        container = container.with_label(f"org.opencontainers.image.{key}", value)
    return container


def checked(container: dagger.Container, args: list[str], *, start: str = "5s") -> dagger.Container:
    """Set a health check in exec form: no shell and no curl have to be in the image.

    For the first `start` (a Go duration) a failure does not count.
    """
    return container.with_docker_healthcheck(
        args, shell=False, interval="10s", timeout="5s", start_period=start, start_interval="1s", retries=3
    )
