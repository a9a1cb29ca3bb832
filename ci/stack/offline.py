"""Stand-ins for registry images: bases made from distribution packages, loaded into the engine by digest.

An OCI layout becomes loadable by one annotation in its index that says under which name to store it; nothing else of
it changes, so the digest that compose starts is the one that `agent-loop bases list` shows.
"""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
from collections.abc import Callable, Iterable
from pathlib import Path

from ci.engine.bases import store
from ci.engine.bases.build import build as build_base
from ci.engine.bases.errors import BasesError
from ci.stack.errors import BuildFailed
from ci.stack.images import digest

STAND_INS = {
    "prometheus": "AGENT_LOOP_IMAGE_PROMETHEUS",
    "alertmanager": "AGENT_LOOP_IMAGE_ALERTMANAGER",
    "node-exporter": "AGENT_LOOP_IMAGE_NODE_EXPORTER",
    "nginx": "AGENT_LOOP_IMAGE_NGINX",
}
"""Base name to the variable that compose.offline.yaml reads."""


def build(names: Iterable[str], say: Callable[[str], None]) -> dict[str, str]:
    """Make and load the named bases; return variable to `name@digest`. Raises BuildFailed."""
    found: dict[str, str] = {}
    for name in names:
        image = f"agent-loop/{name}"
        try:
            record = build_base(name, store.host_arch(), say=say)
        except BasesError as error:
            raise BuildFailed(f"{error}. 'agent-loop bases build {name} --verbose' shows why.") from error
        if digest(f"{image}@{record.digest}") is None:
            load(store.layout(name, record.arch), f"docker.io/{image}:local")
        found[STAND_INS[name]] = f"{image}@{record.digest}"
    return found


def load(layout: Path, reference: str) -> None:
    """Load an OCI layout into the engine under a full reference. Raises BuildFailed with what docker said."""
    index = json.loads((layout / "index.json").read_text())
    for manifest in index["manifests"]:
        manifest["annotations"] = {"io.containerd.image.name": reference}
    with subprocess.Popen(
        ["docker", "load", "--quiet"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        try:
            with tarfile.open(fileobj=process.stdin, mode="w|") as archive:
                _add(archive, "oci-layout", (layout / "oci-layout").read_bytes())
                _add(archive, "index.json", json.dumps(index).encode())
                for blob in sorted((layout / "blobs").rglob("*")):
                    archive.add(blob, str(blob.relative_to(layout)), recursive=False)
        except BrokenPipeError:
            pass  # docker said why on standard error, read next
        _, said = process.communicate()
    if process.returncode != 0:
        raise BuildFailed(f"docker load of {layout} failed: {said.decode(errors='replace').strip()}")


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    archive.addfile(entry, io.BytesIO(content))
