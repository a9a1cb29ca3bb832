"""A root file system's tar archive as an OCI image layout with one layer. Equal input gives equal bytes.

Formats: OCI Image Format Specification 1.1 (image layout, index, manifest, configuration).
"""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ci.engine.bases.recipes import EPOCH, PATH, SUITE, Recipe

_INDEX = "application/vnd.oci.image.index.v1+json"
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_CONFIG = "application/vnd.oci.image.config.v1+json"
# Uncompressed: it is read on this machine only, and a compressor's version would decide the digest.
_LAYER = "application/vnd.oci.image.layer.v1.tar"


@dataclass(frozen=True)
class Blob:
    """A content-addressed file of the layout."""

    digest: str
    size: int

    def descriptor(self, media_type: str, **more: Any) -> dict[str, Any]:
        """The OCI descriptor that points here."""
        return {"mediaType": media_type, "digest": self.digest, "size": self.size, **more}


def file_digest(path: Path) -> str:
    """`sha256:…` of a file's content."""
    with path.open("rb") as stream:
        return "sha256:" + hashlib.file_digest(stream, "sha256").hexdigest()


def configuration(recipe: Recipe, arch: str, diff_id: str) -> dict[str, Any]:
    """The image configuration of `recipe`; `diff_id` is `sha256:…` of its one layer's tar."""
    created = datetime.fromtimestamp(EPOCH, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    config: dict[str, Any] = {
        "Env": [f"PATH={PATH}"],
        "Labels": {
            "org.opencontainers.image.title": f"agent-loop base {recipe.name}",
            "org.opencontainers.image.description": f"Debian {SUITE}: {recipe.about}",
        },
    }
    if recipe.user:
        config["User"] = recipe.user
    if recipe.entrypoint:
        config["Entrypoint"] = list(recipe.entrypoint)
    if recipe.command:
        config["Cmd"] = list(recipe.command)
    if recipe.ports:
        config["ExposedPorts"] = {f"{port}/tcp": {} for port in recipe.ports}
    return {
        "created": created,
        "architecture": arch,
        "os": "linux",
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": [diff_id]},
        "history": [{"created": created, "created_by": "agent-loop bases build", "comment": recipe.name}],
    }


def write_layout(recipe: Recipe, arch: str, rootfs: Path, folder: Path) -> str:
    """Write the layout into `folder`, moving the tar `rootfs` into it. Return the manifest's digest."""
    blobs = folder / "blobs" / "sha256"
    blobs.mkdir(parents=True, exist_ok=True)
    layer = Blob(file_digest(rootfs), rootfs.stat().st_size)
    shutil.move(rootfs, blobs / layer.digest.removeprefix("sha256:"))
    config = _store(blobs, configuration(recipe, arch, layer.digest))
    manifest = _store(
        blobs,
        {
            "schemaVersion": 2,
            "mediaType": _MANIFEST,
            "config": config.descriptor(_CONFIG),
            "layers": [layer.descriptor(_LAYER)],
        },
    )
    reference = recipe.references[0]
    names = {
        "io.containerd.image.name": f"docker.io/{reference if '/' in reference else 'library/' + reference}",
        "org.opencontainers.image.ref.name": reference.rpartition(":")[2],
    }
    platform = {"architecture": arch, "os": "linux"}
    index = {
        "schemaVersion": 2,
        "mediaType": _INDEX,
        "manifests": [manifest.descriptor(_MANIFEST, platform=platform, annotations=names)],
    }
    (folder / "index.json").write_text(json.dumps(index, indent=2) + "\n")
    (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}\n')
    return manifest.digest


def _store(blobs: Path, value: dict[str, Any]) -> Blob:
    data = json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
    digest = hashlib.sha256(data).hexdigest()
    (blobs / digest).write_bytes(data)
    return Blob(f"sha256:{digest}", len(data))
