"""Images that leave the session: archives, the local image store, registries; and images from other Dockerfiles.

BuildKit's exporter makes the image. Where a pipeline took something away that a Dockerfile cannot take away (an
inherited variable, a label), or set an annotation, the image's configuration and manifest are rewritten here;
its layers never are.
"""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import io
import json
import posixpath
import re
import shutil
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .buildkit import Job
from .dockerfile import Context
from ci.engine.durations import nanoseconds
from ci.engine.errors import BuildFailed, ExecError, FieldError
from .execs import in_dockerfile
from ci.engine.files.fs import Image, folder_at, plain
from .images import Resolved
from ci.engine.needs import DockerBuild, Ship
from ci.engine.files.tree import EPOCH, clean
from ci.engine.values import Container, Healthcheck

if TYPE_CHECKING:
    from .builder import Builder

COMPRESSIONS = {"gzip": "gzip", "zstd": "zstd", "estargz": "estargz", "uncompressed": "uncompressed"}
OCI = {"OCIMediaTypes": True, "OCI": True, "DockerMediaTypes": False, "DOCKER": False}
INDEX = "application/vnd.oci.image.index.v1+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
CREATED = "org.opencontainers.image.created"


def ship(builder: Builder, need: Ship) -> str:
    """Build an image and bring it where it shall go; its digest. Raises FieldError and what builds raise."""
    containers = (
        [need.container, *need.variants] if _holds(need.container) or not need.variants else list(need.variants)
    )
    containers = [replace(c, fs=builder.resolve(c.fs)) for c in containers]
    if len(containers) == 1 and need.how == "push" and not _needs_rewriting(containers[0]):
        return _direct(builder, need, containers[0])
    folders = [_layout(builder, need, c) for c in containers]
    image = Archive.of(folders, containers, OCI[need.media_types])
    match need.how:
        case "file":
            target = Path(need.target)
            if target.is_dir():
                raise FieldError(f"{target} is a folder; the archive needs a file name. Give one.")
            target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            target.touch(mode=0o600)
            with target.open("wb") as file:
                image.write(file)
        case "store":
            buffer = builder.folder.parent / f"store.{image.digest[7:19]}.tar"
            with buffer.open("wb") as file:
                image.write(file, name=need.target)
            builder.buildkit.docker("load", "--input", str(buffer))
            buffer.unlink()
        case _:
            _push(builder, need, folders, image)
    return image.digest


def _holds(container: Container) -> bool:
    """Whether a container is more than the empty one that platform variants are hung on."""
    return not (container.fs.static and not container.env and not container.entrypoint and container.step is None
                and container.fs.key == Container("").fs.key)  # fmt: skip


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
    words = ["rewrite-timestamp=true", f"oci-mediatypes={str(OCI[need.media_types]).lower()}"]
    if need.compression:
        words += [f"compression={COMPRESSIONS[need.compression.lower()]}", "force-compression=true"]
    elif need.how == "store":
        # An image that stays on this machine is unpacked at once: compressing it would only cost time.
        words += ["compression=uncompressed", "force-compression=true"]
    return ",".join(words)


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
        raise builder.explain(failed, lowering, []) from None


def _direct(builder: Builder, need: Ship, container: Container) -> str:
    """Let BuildKit push the image itself, without a detour over this machine."""
    options = _options(need)
    more: dict[str, Any] = {"config": _login(builder, container)}
    if builder.session.options.provenance:
        session = builder.session.options
        caches = [f"--cache-to={c}" for c in session.cache_to] + [f"--cache-from={c}" for c in session.cache_from]
        more["options"] = (*caches, "--provenance=mode=max")
    metadata = _run(builder, container, f"type=image,name={need.target},push=true,{options}", **more)
    return str(metadata.get("containerimage.digest", ""))


def _layout(builder: Builder, need: Ship, container: Container) -> Path:
    folder = builder.session.scratch / f"image-{len(list(builder.session.scratch.glob('image-*')))}"
    _run(builder, container, f"type=oci,tar=false,dest={folder},{_options(need)}", configured=False)
    return folder


def _login(builder: Builder, container: Container) -> Path | None:
    """A Docker configuration folder with the container's registry logins, beside the person's own."""
    if not container.auth:
        return None
    folder = builder.session.scratch / "docker"
    folder.mkdir(exist_ok=True, mode=0o700)
    own = Path(builder.session.env.get("DOCKER_CONFIG") or Path.home() / ".docker") / "config.json"
    try:
        config: dict[str, Any] = json.loads(own.read_text())
    except (OSError, ValueError):
        config = {}
    auths = config.setdefault("auths", {})
    for address, user, secret in container.auth:
        word = builder.session.secrets.plaintext(secret).decode()
        host = address.partition("/")[0]
        host = "https://index.docker.io/v1/" if host in ("docker.io", "registry-1.docker.io") else host
        auths[host] = {"auth": base64.b64encode(f"{user}:{word}".encode()).decode()}
    config.pop("credsStore", None)
    path = folder / "config.json"
    path.touch(mode=0o600)
    path.write_text(json.dumps(config))
    return folder


def _push(builder: Builder, need: Ship, folders: list[Path], image: Archive) -> None:
    """Push what was put together here: each platform by digest, then the list of them."""
    target = need.target
    login = _login(builder, need.container)
    pushed: list[str] = []
    for number, folder in enumerate(folders):
        manifest = image.manifests[number]
        staged = builder.session.scratch / f"push-{number}"
        image.write_layout(staged, number)
        job = Job(
            "FROM image\n", "", builder.folder, contexts={"image": f"oci-layout://{staged}@{manifest['digest']}"},
            output=f"type=image,name={target},push=true,push-by-digest=true", config=login,
            options=("--provenance=false",),
        )  # fmt: skip
        done = builder.buildkit.run(replace(job, dockerfile="FROM image AS image\n", target="image"))
        pushed.append(str(done.get("containerimage.digest") or manifest["digest"]))
        shutil.rmtree(folder, ignore_errors=True)
    repository = re.sub(r"(:[\w.-]+)?(@.*)?$", "", target) if ":" in posixpath.basename(target) else target
    builder.buildkit.imagetools("create", "--tag", target, *[f"{repository}@{d}" for d in pushed], config=login)


# Rewriting


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
    manifests: list[dict[str, Any]]
    """Descriptors, as an index lists them."""
    digest: str

    @classmethod
    def of(cls, folders: list[Path], containers: list[Container], oci: bool) -> Archive:
        """From the layouts that BuildKit wrote, with the containers' configuration."""
        blobs: dict[str, bytes | Path] = {}
        descriptors: list[dict[str, Any]] = []
        for folder, container in zip(folders, containers, strict=True):
            descriptors.append(cls._one(folder, container, blobs))
        if len(descriptors) == 1:
            return cls(blobs, descriptors, descriptors[0]["digest"])
        index = json.dumps(
            {"schemaVersion": 2, "mediaType": INDEX if oci else DOCKER_LIST, "manifests": descriptors}
        ).encode()
        digest = _digest(index)
        blobs[digest] = index
        return cls(blobs, descriptors, digest)

    @staticmethod
    def _one(folder: Path, container: Container, blobs: dict[str, bytes | Path]) -> dict[str, Any]:
        def read(digest: str) -> bytes:
            return (folder / "blobs" / digest.replace(":", "/")).read_bytes()

        descriptor = json.loads((folder / "index.json").read_text())["manifests"][0]
        manifest = json.loads(read(descriptor["digest"]))
        if "manifests" in manifest:
            descriptor = manifest["manifests"][0]
            manifest = json.loads(read(descriptor["digest"]))
        config = json.loads(read(manifest["config"]["digest"]))
        config["config"] = image_config(container)
        config["history"] = [h for h in config.get("history") or [] if not h.get("empty_layer")]
        for name in [k for k in config if k.startswith("moby.") or (k in ("variant", "author") and not config[k])]:
            del config[name]
        data = json.dumps(config, sort_keys=True).encode()
        manifest["config"]["digest"], manifest["config"]["size"] = _digest(data), len(data)
        blobs[manifest["config"]["digest"]] = data
        for layer in manifest["layers"]:
            blobs[layer["digest"]] = folder / "blobs" / layer["digest"].replace(":", "/")
            layer.pop("annotations", None)
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
            tops[0]["annotations"] = {**named, "io.containerd.image.name": _full(name)}
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
                    "RepoTags": [_full(name)] if name else None,
                    "Layers": ["blobs/" + layer["digest"].replace(":", "/") for layer in manifest["layers"]],
                }
            )
        yield "manifest.json", json.dumps(listed).encode()
        yield "oci-layout", json.dumps({"imageLayoutVersion": "1.0.0"}).encode()

    def write(self, file: Any, *, name: str = "") -> None:
        """As a tar archive that `docker load` and OCI tools take; equal images give equal bytes."""
        with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
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


def _full(name: str) -> str:
    """A name as Docker stores it: with registry and tag."""
    from .images import parse

    return parse(name).full


# Other people's Dockerfiles


def docker_build(builder: Builder, need: DockerBuild) -> Container:
    """Build a Dockerfile from a directory; the container that it makes. Raises FieldError, ExecError."""
    fs = builder.resolve(need.context.fs)
    tree = plain(fs, builder.trees) if fs.static else builder.pull(fs)
    tree = folder_at(tree, need.context.path)
    text = tree.text(clean(need.dockerfile))
    if text is None:
        raise FieldError(
            f'failed to read Dockerfile "{need.dockerfile}": open /{clean(need.dockerfile)}: no such file or directory'
        )
    if not text.strip():
        raise FieldError("failed to convert Dockerfile to LLB: the Dockerfile cannot be empty")
    folder = builder.context(Context(f"dockerfile-{tree.key[:12]}", tree))
    layout = builder.session.scratch / f"built-{len(list(builder.session.scratch.glob('built-*')))}"
    contexts = _bases(builder, text, need.platform)
    secrets = {s.label or s.handle: builder.session.secrets.plaintext(s) for s in need.secrets}
    job = Job(
        _without_syntax(text),
        need.target,
        Path(folder),
        contexts=contexts,
        secrets=secrets,
        args=dict(need.args),
        output=f"type=oci,tar=false,dest={layout},rewrite-timestamp=true",
        platform="" if need.platform == builder.platform else need.platform,
        options=("--provenance=false",),
        raw=True,
    )
    try:
        builder.buildkit.run(job)
    except BuildFailed as failed:
        raise _build_error(failed) from None
    index = json.loads((layout / "index.json").read_text())
    digest = index["manifests"][0]["digest"]
    manifest = json.loads((layout / "blobs" / digest.replace(":", "/")).read_text())
    config = json.loads((layout / "blobs" / manifest["config"]["digest"].replace(":", "/")).read_text())
    from ci.engine.fields.container import configured

    found = Resolved(f"dockerfile@{digest}", config.get("config") or {}, f"oci-layout://{layout}@{digest}")
    image = Image(found.reference, need.platform, found.context)
    builder.session.images.keep(image, found)
    return configured(Container(need.platform, fs=image), found.config)


def _without_syntax(text: str) -> str:
    """A Dockerfile without its `# syntax` line, which would fetch a frontend image."""
    return re.sub(r"(?im)\A(\s*)#\s*syntax\s*=.*$", r"\1#", text, count=1)


def _bases(builder: Builder, text: str, platform: str) -> dict[str, str]:
    """Contexts for base images that are made here, by the name that the Dockerfile has for them."""
    found: dict[str, str] = {}
    stages: set[str] = {"scratch"}
    for match in re.finditer(r"(?im)^\s*FROM\s+(?:--\S+\s+)*(\S+)(?:[ \t]+AS[ \t]+(\S+))?", text):
        name = match[1]
        if name.lower() not in stages and "$" not in name:
            image = builder.session.images.resolve(name, platform)
            if image.context:
                found[name] = image.context
        if match[2]:
            stages.add(match[2].lower())
    return found


def _build_error(failed: BuildFailed) -> FieldError:
    if failed.exit_code is not None:
        command = re.search(r'process "(.*)" did not complete', failed.reason)
        words = command[1].replace('\\"', '"').split(" ", 2) if command else []
        return ExecError(words, failed.exit_code, failed.stdout, failed.stderr,
                         f"failed to clone built container state: exit code: {failed.exit_code}")  # fmt: skip
    return FieldError(f"failed to convert Dockerfile to LLB: {failed.reason}")
