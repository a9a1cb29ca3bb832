"""Files of this tree that a program in a container reads as it starts: `up` starts it again when they changed.

Compose compares a service's definition, to which a mounted file's content does not belong, and a file that an editor or
git replaced is another than the one that was mounted. So the content's hash goes into the definition, as a label.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

READ = {
    "prometheus": ("prometheus/prometheus.yml", "prometheus/rules", "prometheus/targets"),
    "alertmanager": ("alertmanager/alertmanager.yml",),
    "grafana": ("grafana/provisioning", "logs/datasource.yml", "logs/dashboards.yml"),
    "loki": ("logs/loki.yml",),
    "alloy": ("logs/config.alloy",),
}
"""Service to files and folders below observability/. Dashboards are none of them: Grafana looks for changes itself."""


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
