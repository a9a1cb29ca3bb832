"""What each base holds: Debian packages, folders, and the image's configuration. Data only.

A change here changes the recipe's hash, and the base is made again at the next `agent-loop bases build`.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field

SUITE = "trixie"
EPOCH = 1735689600
"""Seconds. Every file made by the build is dated at most so (2025-01-01), and so is the image's `created`."""

FORMAT = 2
"""Raise it when the way a layout is made or written changes, so that existing ones are made again."""

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
NOBODY = "65534:65534"


@dataclass(frozen=True)
class Folder:
    """A folder the image holds beforehand; a fresh named volume mounted there takes its owner."""

    path: str
    owner: str = NOBODY


@dataclass(frozen=True)
class Recipe:
    """One base image."""

    name: str
    packages: tuple[str, ...]
    """Debian packages on top of the minimal system; recommended packages are left out."""
    references: tuple[str, ...]
    """Image references it stands in for, without `docker.io/library/` and without a digest."""
    about: str
    binary: str = ""
    """The program it is for: an absolute path in the image."""
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    user: str = ""
    """`uid:gid`; empty means root, as in the official images that later steps build on."""
    ports: tuple[int, ...] = ()
    folders: tuple[Folder, ...] = field(default_factory=tuple)

    def digest(self, arch: str) -> str:
        """Hex SHA-256 of everything that decides the content, package versions aside."""
        text = json.dumps([FORMAT, SUITE, EPOCH, PATH, arch, asdict(self)], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            name="python",
            packages=("ca-certificates", "python3"),
            references=("python:3.13-slim-trixie", "python:3.13-slim"),
            about="Python 3.13 and CA certificates",
            binary="/usr/bin/python3.13",
            command=("python3",),
        ),
        Recipe(
            name="debian",
            packages=("ca-certificates",),
            references=("debian:trixie-slim", "debian:trixie"),
            about="the minimal system and CA certificates",
            command=("/bin/bash",),
        ),
        Recipe(
            name="prometheus",
            packages=("ca-certificates", "prometheus"),
            references=("agent-loop-base/prometheus:trixie",),
            about="Prometheus and promtool",
            binary="/usr/bin/prometheus",
            entrypoint=("/usr/bin/prometheus",),
            command=("--config.file=/etc/prometheus/prometheus.yml", "--storage.tsdb.path=/prometheus"),
            user=NOBODY,
            ports=(9090,),
            folders=(Folder("/prometheus"),),
        ),
        Recipe(
            name="alertmanager",
            packages=("ca-certificates", "prometheus-alertmanager"),
            references=("agent-loop-base/alertmanager:trixie",),
            about="Alertmanager and amtool",
            binary="/usr/bin/prometheus-alertmanager",
            entrypoint=("/usr/bin/prometheus-alertmanager",),
            command=("--config.file=/etc/alertmanager/alertmanager.yml", "--storage.path=/alertmanager"),
            user=NOBODY,
            ports=(9093,),
            folders=(Folder("/alertmanager"),),
        ),
        Recipe(
            name="node-exporter",
            packages=("prometheus-node-exporter",),
            references=("agent-loop-base/node-exporter:trixie",),
            about="Prometheus's node exporter",
            binary="/usr/bin/prometheus-node-exporter",
            entrypoint=("/usr/bin/prometheus-node-exporter",),
            user=NOBODY,
            ports=(9100,),
        ),
        Recipe(
            name="nginx",
            packages=("ca-certificates", "nginx"),
            references=("agent-loop-base/nginx:trixie",),
            about="nginx",
            binary="/usr/sbin/nginx",
            entrypoint=("/usr/sbin/nginx",),
            command=("-g", "daemon off;"),
            user="101:101",
            ports=(8080,),
            folders=(
                Folder("/var/cache/nginx", "101:101"),
                Folder("/var/lib/nginx", "101:101"),
                Folder("/var/log/nginx", "101:101"),
            ),
        ),
    )
}

DEFAULT = ("python",)
"""What `agent-loop bases build` makes when no name is given: all that our own images stand on."""
