"""Images from archives, as a layout that BuildKit takes files from: layers in zstd, which Python 3.11 cannot read."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from ci.engine.files.archive import GZIP, ZSTD, Packed
from ci.engine.files.fs import Image

from .images import Resolved

OCI = "application/vnd.oci.image"
MANIFEST = f"{OCI}.manifest.v1+json"


def imported(archive: Packed, scratch: Path) -> tuple[Image, Resolved]:
    """An archive's image, its layers as they are, in a layout of its own below `scratch`.

    OCI and Docker archives alike, whatever media types they name: what a layer begins with says what it is.
    """
    config = _described(f"{OCI}.config.v1+json", archive.config)
    layers = [_described(f"{OCI}.layer.v1.tar{_compression(data)}", data) for data in archive.layers]
    about = {"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers}
    manifest = json.dumps(about, sort_keys=True).encode()
    described = _described(MANIFEST, manifest)
    folder = scratch / f"import-{described['digest'][7:19]}"
    blobs = folder / "blobs" / "sha256"
    blobs.mkdir(parents=True, exist_ok=True)
    for data in (archive.config, *archive.layers, manifest):
        (blobs / hashlib.sha256(data).hexdigest()).write_bytes(data)
    (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [described]}))
    found = Resolved(f"import@{described['digest']}", archive.settings, f"oci-layout://{folder}@{described['digest']}")
    return Image(found.reference, archive.platform, found.context), found


def _described(media: str, data: bytes) -> dict[str, Any]:
    return {"mediaType": media, "digest": f"sha256:{hashlib.sha256(data).hexdigest()}", "size": len(data)}


def _compression(data: bytes) -> str:
    return "+zstd" if data[:4] == ZSTD else "+gzip" if data[:2] == GZIP else ""
