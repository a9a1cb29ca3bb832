"""Files of this tree that a program in a container reads as it starts: `up` starts it again when they changed.

Compose compares a service's definition, to which a mounted file's content does not belong, and a file that an editor or
git replaced is another than the one that was mounted. So the content's hash goes into the definition, as a label.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

READ = {
    "prometheus": ("prometheus/prometheus.yml", "prometheus/rules", "prometheus/targets"),
    "alertmanager": ("alertmanager/alertmanager.yml",),
    "grafana": ("grafana/provisioning", "logs/datasource.yml", "logs/dashboards.yml"),
    "loki": ("logs/loki.yml",),
    "alloy": ("logs/config.alloy",),
}
"""Service to files and folders below observability/. Dashboards are none of them: Grafana looks for changes itself."""

SOURCES = ("observability", "service", "trainer", "models/demo")
"""What containers read of this tree, mounted or copied into our images."""


def unreadable(root: Path) -> Iterator[Path]:
    """Files and folders of `root` that a container cannot read, since nobody but their owner may.

    A clone under umask 077 has them, and none of our containers runs as their owner. Bytecode is nobody's loss.
    """
    for source in SOURCES:
        for folder, folders, files in os.walk(root / source):
            folders[:] = [name for name in folders if name != "__pycache__"]
            here = Path(folder)
            if not _others_may(here, stat.S_IROTH | stat.S_IXOTH):
                yield here
            yield from (here / name for name in files if not _others_may(here / name, stat.S_IROTH))


def _others_may(path: Path, bits: int) -> bool:
    try:
        return path.lstat().st_mode & bits == bits
    except FileNotFoundError:  # an editor's, gone since the folder was read
        return True


def variable(service: str) -> str:
    """The variable that the service's label takes."""
    return f"AGENT_LOOP_READ_{service.upper()}"


def environment(observability: Path) -> dict[str, str]:
    """Each service's variable with the hash of what it reads."""
    return {variable(service): _hash(observability, names) for service, names in READ.items()}


def _hash(folder: Path, names: tuple[str, ...]) -> str:
    found = hashlib.sha256()
    for name in names:
        there = folder / name
        for path in sorted(there.rglob("*")) if there.is_dir() else [there]:
            if path.is_file():
                found.update(f"{path.relative_to(folder)}\0".encode() + hashlib.sha256(path.read_bytes()).digest())
    return found.hexdigest()[:16]
