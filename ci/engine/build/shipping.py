"""Images that leave the session: archives, the local image store, registries.

BuildKit's exporter makes the image. Where a pipeline took something away that a Dockerfile cannot take away (an
inherited variable, a label), or set an annotation, `image.py` writes its configuration and manifest.
"""

from __future__ import annotations

import datetime as dt
import json
import posixpath
import re
import shutil
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ci.engine.errors import BuildFailed, FieldError
from ci.engine.files.fs import SCRATCH
from ci.engine.files.tree import EPOCH
from ci.engine.needs import Ship
from ci.engine.values import Container

from .buildkit import Job
from .execs import in_dockerfile
from .image import Archive, full_name, image_config
from .store import Exported, Exports, fingerprint
from .times import Layer, dated

if TYPE_CHECKING:
    from .builder import Builder

COMPRESSIONS = {"gzip": "gzip", "zstd": "zstd", "estargz": "estargz", "uncompressed": "uncompressed"}
OCI = {"OCIMediaTypes": True, "OCI": True, "DockerMediaTypes": False, "DOCKER": False}
CREATED = "org.opencontainers.image.created"


def ship(builder: Builder, need: Ship) -> str:
    """Build an image and bring it where it shall go; its digest. Raises FieldError and what builds raise."""
    containers = [c for c in (need.container, *need.variants) if c.fs.key != SCRATCH.key]
    if not containers:
        raise FieldError("no containers to export")
    containers = [replace(c, fs=builder.resolver.files(c.fs)) for c in containers]
    match need.how:
        case "file":
            return _to_file(builder, need, containers)
        case "store":
            return _to_store(builder, need, containers)
        case _:
            return _to_registry(builder, need, containers)


def _assembled(builder: Builder, need: Ship, containers: list[Container]) -> tuple[list[Path], Archive]:
    """The image put together here, and the layouts that BuildKit wrote for it."""
    folders = [_layout(builder, c, _options(need)) for c in containers]
    return folders, Archive.of(folders, containers, OCI[need.media_types])


def _to_file(builder: Builder, need: Ship, containers: list[Container]) -> str:
    target = Path(need.target)
    if target.is_dir():
        raise FieldError(f"{target} is a folder; the archive needs a file name. Give one.")
    _, image = _assembled(builder, need, containers)
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    target.touch(mode=0o600)
    with target.open("wb") as file:
        image.write(file)
    return image.digest


def _to_store(builder: Builder, need: Ship, containers: list[Container]) -> str:
    """Bring an image into Docker's store, and of its layers only those that are not there.

    The layers are dated here and not by BuildKit, which would write all of them anew each time. Those that the image
    had when it was last exported under this name are not even read: a file of that name in the layout tells BuildKit
    that the layer is there.
    """
    if COMPRESSIONS.get((need.compression or "").lower(), "uncompressed") != "uncompressed":
        image = _assembled(builder, need, containers)[1]
        _take(builder, need, image)
        return image.digest
    name, exports = full_name(need.target), Exports(builder.buildkit)
    noted = exports.noted(name)
    with ThreadPoolExecutor(1) as beside:
        stored = beside.submit(exports.digest, name) if noted else None
        made = _dated(builder, need, containers, noted)
    if noted and stored and stored.result() != noted.digest:
        noted, made = None, _whole(builder, need, containers, made)
    if noted and noted.made_from == fingerprint(made.inputs):
        return noted.digest
    try:
        return _load(builder, need, containers, made)
    except BuildFailed:
        whole = _whole(builder, need, containers, made)
        if whole is made:
            raise
        return _load(builder, need, containers, whole)  # the store has the image, but not all of its layers


@dataclass(frozen=True)
class _Dated:
    """An image's layouts, as BuildKit wrote them, and their layers with the image's times."""

    folders: list[Path]
    layers: dict[str, Layer]
    latest: int
    inputs: str
    """What the image's bytes follow from."""


def _dated(builder: Builder, need: Ship, containers: list[Container], noted: Exported | None) -> _Dated:
    """Build an image for the store. Layers that `noted` has are not brought here."""
    latest = max(_epoch(builder, c) for c in containers)
    known = noted.layers if noted and noted.latest == latest else {}
    options = f"oci-mediatypes={str(OCI[need.media_types]).lower()}," + _compression(need)
    folders, layers = list[Path](), dict[str, Layer]()
    described: list[Any] = [options, latest]
    for container in containers:
        folder = _layout(builder, container, options, known)
        folders.append(folder)
        layers |= dated(folder, latest, known)
        manifest = (folder / "index.json").read_text()
        digests = [m["digest"] for m in json.loads(manifest)["manifests"]]
        described.append([digests, container.platform, image_config(container), container.annotations])
    return _Dated(folders, layers, latest, json.dumps(described, sort_keys=True))


def _whole(builder: Builder, need: Ship, containers: list[Container], made: _Dated) -> _Dated:
    """The image with every layer here; built again only if some were left where the store was thought to have them."""
    if all(layer.path is not None for layer in made.layers.values()):
        return made
    for folder in made.folders:
        shutil.rmtree(folder)  # an image with torch is gigabytes
    return _dated(builder, need, containers, None)


def _load(builder: Builder, need: Ship, containers: list[Container], made: _Dated) -> str:
    """Let Docker's store take an image, and note it."""
    image = Archive.of(made.folders, containers, OCI[need.media_types], made.layers)
    _take(builder, need, image)
    noted = Exported.of(made.inputs, image.digest, made.latest, made.layers)
    Exports(builder.buildkit).note(full_name(need.target), noted)
    return image.digest


def _take(builder: Builder, need: Ship, image: Archive) -> None:
    builder.buildkit.load(lambda file: image.write(file, name=need.target))


def _to_registry(builder: Builder, need: Ship, containers: list[Container]) -> str:
    if len(containers) == 1 and not _needs_rewriting(containers[0]):
        return _direct(builder, need, containers[0])
    folders, image = _assembled(builder, need, containers)
    _push(builder, need, folders, image)
    return image.digest


def _epoch(builder: Builder, container: Container) -> int:
    """The time that everything in the image gets: given, or of the commit as its label says, or a fixed one."""
    given = builder.session.env.get("SOURCE_DATE_EPOCH", "")
    if given.isdigit():
        return int(given)
    label = dict(container.labels).get(CREATED, "")
    try:
        return int(dt.datetime.fromisoformat(label.replace("Z", "+00:00")).timestamp())
    except ValueError:
        return EPOCH


def _options(need: Ship) -> str:
    media = f"oci-mediatypes={str(OCI[need.media_types]).lower()}"
    return ",".join(filter(None, ["rewrite-timestamp=true", media, _compression(need)]))


def _compression(need: Ship) -> str:
    if need.compression:
        return f"compression={COMPRESSIONS[need.compression.lower()]},force-compression=true"
    # An image that stays on this machine is unpacked at once: compressing it would only cost time.
    return "compression=uncompressed,force-compression=true" if need.how == "store" else ""


def _run(
    builder: Builder, container: Container, output: str, *, configured: bool = True, **more: Any
) -> dict[str, Any]:
    """Build a container's image, or only its files where the configuration is written here afterwards."""
    lowering = builder.lowering()
    target = lowering.image(container) if configured else lowering.target(container.fs)
    args = {"SOURCE_DATE_EPOCH": str(_epoch(builder, container))}
    platform = container.platform if container.platform != builder.platform else ""
    try:
        return builder.run(lowering, target, output, args=args, platform=platform, **more)
    except BuildFailed as failed:
        if builder.clears(failed):
            return _run(builder, container, output, configured=configured, **more)
        raise builder.explain(failed, lowering) from None


def _direct(builder: Builder, need: Ship, container: Container) -> str:
    """Let BuildKit make the whole image, attestations too, and push it.

    The BuildKit inside Docker unpacks whatever it pushes and refuses that together with new times; there the image goes
    through Docker's store, which pushes it unchanged.
    """
    options, more = _options(need), dict[str, Any]()
    if builder.session.options.provenance:
        session = builder.session.options
        caches = [f"--cache-to={c}" for c in session.cache_to] + [f"--cache-from={c}" for c in session.cache_from]
        more["options"] = (*caches, "--provenance=mode=max")
    if not builder.buildkit.is_docker():
        metadata = _run(builder, container, f"type=image,name={need.target},push=true,{options}", **more)
        return str(metadata.get("containerimage.digest", ""))
    archive = builder.folder.parent / "push.tar"
    metadata = _run(builder, container, f"type=oci,dest={archive},name={need.target},{options}", **more)
    builder.buildkit.docker("load", "--input", str(archive))
    archive.unlink()
    builder.buildkit.docker("push", "--quiet", need.target)
    return str(metadata.get("containerimage.digest", ""))


def _layout(builder: Builder, container: Container, options: str, known: Iterable[str] = ()) -> Path:
    """Let BuildKit write an image's layout, without the layers in `known`."""
    folder = builder.fresh("image")
    blobs = folder / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    for digest in known:
        (blobs / digest.removeprefix("sha256:")).touch()
    _run(builder, container, f"type=oci,tar=false,dest={folder},{options}", configured=False)
    return folder


def _push(builder: Builder, need: Ship, folders: list[Path], image: Archive) -> None:
    """Push what was put together here: each platform by digest, then the list of them.

    The BuildKit inside Docker pushes nothing by digest; there the image goes through Docker's store.
    """
    target = need.target
    if builder.buildkit.is_docker():
        _take(builder, need, image)
        builder.buildkit.docker("push", "--quiet", target)
        return
    pushed: list[str] = []
    for number, folder in enumerate(folders):
        manifest = image.manifests[number]
        staged = builder.session.scratch / f"push-{number}"
        image.write_layout(staged, number)
        job = Job(
            "FROM image\n", "", builder.folder, contexts={"image": f"oci-layout://{staged}@{manifest['digest']}"},
            output=f"type=image,name={target},push=true,push-by-digest=true",
            options=("--provenance=false",),
        )  # fmt: skip
        done = builder.buildkit.run(replace(job, dockerfile="FROM image AS image\n", target="image"))
        pushed.append(str(done.get("containerimage.digest") or manifest["digest"]))
        shutil.rmtree(folder, ignore_errors=True)
    repository = re.sub(r"(:[\w.-]+)?(@.*)?$", "", target) if ":" in posixpath.basename(target) else target
    builder.buildkit.imagetools("create", "--tag", target, *[f"{repository}@{d}" for d in pushed])


def _needs_rewriting(container: Container) -> bool:
    """Whether something about the configuration cannot be said in a Dockerfile."""
    kept = {n for n, _ in container.env}
    return bool(
        container.annotations
        or any(n not in kept for n, _ in container.base_env)
        or any(not in_dockerfile(n, v) for n, v in container.env)
        or any(not n or re.search(r"[\r\n]", v) for n, v in container.labels)
        or (container.user == "" and container.extra.get("user"))
    )
