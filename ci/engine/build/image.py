"""An image put together here: BuildKit's layers, with the configuration and manifest that the pipeline asked for.

What a Dockerfile cannot say (a variable of the base taken away, an annotation) is written here; layers never are.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ci.engine.durations import nanoseconds
from ci.engine.values import Container, Healthcheck

from .images import parse
from .times import Layer, manifest_of

INDEX = "application/vnd.oci.image.index.v1+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"


def image_config(container: Container) -> dict[str, Any]:
    """The `config` part of an image's configuration, exactly as the container has it."""
    made: dict[str, Any] = {}
    if container.user:
        made["User"] = container.user
    if container.ports:
        made["ExposedPorts"] = {f"{p.port}/{p.protocol.lower()}": {} for p in container.ports}
    if container.env:
        made["Env"] = [f"{n}={v}" for n, v in container.env]
    if container.entrypoint:
        made["Entrypoint"] = list(container.entrypoint)
    if container.default_args:
        made["Cmd"] = list(container.default_args)
    if container.workdir:
        made["WorkingDir"] = container.workdir
    if container.labels:
        made["Labels"] = dict(container.labels)
    if container.healthcheck is not None:
        made["Healthcheck"] = _healthcheck(container.healthcheck)
    for name in ("StopSignal", "Volumes", "Shell", "OnBuild"):
        if container.extra.get(name):
            made[name] = container.extra[name]
    return made


def _healthcheck(check: Healthcheck) -> dict[str, Any]:
    made: dict[str, Any] = {"Test": ["CMD-SHELL" if check.shell else "CMD", *check.args]}
    times = {
        "Interval": check.interval,
        "Timeout": check.timeout,
        "StartPeriod": check.start_period,
        "StartInterval": check.start_interval,
    }
    made |= {name: nanoseconds(text) for name, text in times.items() if text != "0s"}
    return made | ({"Retries": check.retries} if check.retries else {})


@dataclass(frozen=True)
class Archive:
    """An image put together: its blobs, one manifest per platform, and what names it."""

    blobs: Mapping[str, bytes | Path]
    """Without the layers that the store has which the image is meant for."""
    manifests: list[dict[str, Any]]
    """Descriptors, as an index lists them."""
    digest: str

    @classmethod
    def of(
        cls,
        folders: list[Path],
        containers: list[Container],
        oci: bool,
        layers: Mapping[str, Layer] = MappingProxyType({}),
    ) -> Archive:
        """From the layouts that BuildKit wrote, with the containers' configuration and, by digest, other layers."""
        blobs: dict[str, bytes | Path] = {}
        descriptors: list[dict[str, Any]] = []
        for folder, container in zip(folders, containers, strict=True):
            descriptors.append(cls._one(folder, container, layers, blobs))
        if len(descriptors) == 1:
            return cls(blobs, descriptors, descriptors[0]["digest"])
        index = json.dumps(
            {"schemaVersion": 2, "mediaType": INDEX if oci else DOCKER_LIST, "manifests": descriptors}
        ).encode()
        digest = _digest(index)
        blobs[digest] = index
        return cls(blobs, descriptors, digest)

    @staticmethod
    def _one(
        folder: Path, container: Container, layers: Mapping[str, Layer], blobs: dict[str, bytes | Path]
    ) -> dict[str, Any]:
        manifest, config = manifest_of(folder)
        config["config"] = image_config(container)
        config["history"] = [h for h in config.get("history") or [] if not h.get("empty_layer")]
        for name in [k for k in config if k.startswith("moby.") or (k in ("variant", "author") and not config[k])]:
            del config[name]
        for number, layer in enumerate(manifest["layers"]):
            layer.pop("annotations", None)
            other = layers.get(layer["digest"])
            if other is None:
                blobs[layer["digest"]] = folder / "blobs" / layer["digest"].replace(":", "/")
                continue
            layer |= {"digest": other.digest, "size": other.size}
            config["rootfs"]["diff_ids"][number] = other.digest
            if other.path is not None:
                blobs[other.digest] = other.path
        data = json.dumps(config, sort_keys=True).encode()
        manifest["config"]["digest"], manifest["config"]["size"] = _digest(data), len(data)
        blobs[manifest["config"]["digest"]] = data
        manifest.pop("annotations", None)
        annotations = dict(container.annotations)
        if annotations:
            manifest["annotations"] = annotations
        text = json.dumps(manifest, sort_keys=True).encode()
        blobs[_digest(text)] = text
        os_name, _, architecture = container.platform.partition("/")
        architecture, _, variant = architecture.partition("/")
        platform = {"architecture": architecture, "os": os_name} | ({"variant": variant} if variant else {})
        made = {"mediaType": manifest["mediaType"], "digest": _digest(text), "size": len(text), "platform": platform}
        return made | ({"annotations": annotations} if annotations else {})

    def _tops(self, name: str) -> list[dict[str, Any]]:
        if len(self.manifests) == 1:
            tops: list[dict[str, Any]] = [dict(self.manifests[0])]
        else:
            data = self.blobs[self.digest]
            assert isinstance(data, bytes)
            media = json.loads(data)["mediaType"]
            tops = [{"mediaType": media, "digest": self.digest, "size": len(data)}]
        if name:
            named: dict[str, str] = tops[0].setdefault("annotations", {})
            tops[0]["annotations"] = {**named, "io.containerd.image.name": full_name(name)}
        return tops

    def _files(self, name: str) -> Iterator[tuple[str, bytes | Path]]:
        for digest, data in sorted(self.blobs.items()):
            yield "blobs/" + digest.replace(":", "/"), data
        index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": self._tops(name)}
        yield "index.json", json.dumps(index).encode()
        listed: list[dict[str, Any]] = []
        for descriptor in self.manifests:
            data = self.blobs[descriptor["digest"]]
            assert isinstance(data, bytes)
            manifest = json.loads(data)
            listed.append(
                {
                    "Config": "blobs/" + manifest["config"]["digest"].replace(":", "/"),
                    "RepoTags": [full_name(name)] if name else None,
                    "Layers": ["blobs/" + layer["digest"].replace(":", "/") for layer in manifest["layers"]],
                }
            )
        yield "manifest.json", json.dumps(listed).encode()
        yield "oci-layout", json.dumps({"imageLayoutVersion": "1.0.0"}).encode()

    def write(self, file: Any, *, name: str = "") -> None:
        """As a tar archive that `docker load` and OCI tools take; equal images give equal bytes."""
        with tarfile.open(fileobj=file, mode="w|", format=tarfile.PAX_FORMAT) as archive:
            for folder in ("blobs/", "blobs/sha256/"):
                info = tarfile.TarInfo(folder)
                info.type, info.mode = tarfile.DIRTYPE, 0o755
                archive.addfile(info)
            for path, data in self._files(name):
                info = tarfile.TarInfo(path)
                info.mode = 0o644
                if isinstance(data, bytes):
                    info.size = len(data)
                    archive.addfile(info, io.BytesIO(data))
                else:
                    info.size = data.stat().st_size
                    with data.open("rb") as source:
                        archive.addfile(info, source)

    def write_layout(self, folder: Path, number: int) -> None:
        """One platform's image as an OCI layout in a folder."""
        only = replace(self, manifests=[self.manifests[number]])
        for path, data in only._files(""):
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(data, bytes):
                target.write_bytes(data)
            else:
                shutil.copyfile(data, target)


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def full_name(name: str) -> str:
    """A name as Docker stores it: with registry and tag."""
    return parse(name).full
