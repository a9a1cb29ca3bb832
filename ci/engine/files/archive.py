"""Images as archives: reading one (`import`), and giving what BuildKit wrote the form that Dagger gives it."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import posixpath
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from .fs import Fs, digest
from .tree import Blob, Entry, Tree, clean

if TYPE_CHECKING:
    from ci.engine.needs import Ship

WHITEOUT = ".wh."
OPAQUE = ".wh..wh..opq"
GZIP, ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
"""What compressed data begins with."""
TAG = "org.opencontainers.image.ref.name"


class ArchiveError(ValueError):
    """An archive that is no image, and why."""


@dataclass(frozen=True, eq=False)
class Tarball(Fs):
    """A file system with one file, the archive of an image that is still to be built."""

    lowered: ClassVar[bool] = False
    ship: Ship

    @property
    def key(self) -> str:  # type: ignore[override]
        containers = [self.ship.container, *self.ship.variants]
        described = [[c.platform, c.fs, c.env, c.user, c.workdir, c.around, sorted(c.extra)] for c in containers]
        return digest(["Tarball", described, self.ship.compression, self.ship.media_types])

    @property
    def static(self) -> bool:  # type: ignore[override]
        return False


@dataclass(frozen=True)
class ImageContent:
    """An image that was read: files, the `config` part of its configuration, platform."""

    tree: Tree
    config: Mapping[str, Any]
    platform: str


@dataclass(frozen=True)
class Packed:
    """An image as it lies in an archive."""

    config: bytes
    """Its configuration file."""
    layers: tuple[bytes, ...]

    @property
    def zstd(self) -> bool:
        """Whether there are layers that only BuildKit can read."""
        return any(data[:4] == ZSTD for data in self.layers)

    @property
    def platform(self) -> str:
        about = json.loads(self.config)
        return f"{about.get('os', 'linux')}/{about['architecture']}"

    @property
    def settings(self) -> Mapping[str, Any]:
        """The `config` part of its configuration."""
        return json.loads(self.config).get("config") or {}

    def content(self) -> ImageContent:
        """With its files. Raises ArchiveError where `zstd` is true."""
        tree = Tree()
        for layer in self.layers:
            tree = apply_layer(tree, layer)
        return ImageContent(tree, self.settings, self.platform)


def packed(data: bytes, platform: str, tag: str = "") -> Packed:
    """Read an OCI or Docker archive: the image for a platform, of several the one with the tag. Raises ArchiveError."""
    try:
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            members = {clean(m.name): m for m in archive.getmembers() if m.isfile()}

            def blob(name: str) -> bytes:
                found = archive.extractfile(members[clean(name)])
                assert found is not None
                return found.read()

            if "index.json" in members:
                manifest = _manifest(json.loads(blob("index.json")), blob, platform, tag)
                config = blob(_place(manifest["config"]["digest"]))
                layers = [blob(_place(layer["digest"])) for layer in manifest["layers"]]
            elif "manifest.json" in members:
                described = _tagged(json.loads(blob("manifest.json")), tag)
                if described is None:
                    raise ArchiveError(f"no manifest for platform {platform} and tag {tag}")
                config = blob(described["Config"])
                layers = [blob(name) for name in described["Layers"]]
            else:
                raise ArchiveError("neither index.json nor manifest.json in the archive")
            json.loads(config)["architecture"]
    except tarfile.TarError:
        raise ArchiveError("unexpected EOF") from None
    except (KeyError, IndexError, ValueError) as error:
        if isinstance(error, ArchiveError):
            raise
        raise ArchiveError(f"invalid image archive: {error}") from None
    return Packed(config, tuple(layers))


def _place(name: str) -> str:
    return "blobs/" + name.replace(":", "/")


def _manifest(index: Mapping[str, Any], blob: Any, platform: str, tag: str) -> dict[str, Any]:
    """The manifest of one platform, through as many indexes as there are; one that names no platform has any."""
    for choice in index["manifests"]:
        about = choice.get("platform")
        if about and [about.get("os"), about.get("architecture")] != platform.split("/")[:2]:
            continue
        if tag and (choice.get("annotations") or {}).get(TAG) != tag:
            continue
        found = json.loads(blob(_place(choice["digest"])))
        return _manifest(found, blob, platform, "") if "manifests" in found else found
    raise ArchiveError(f"no manifest for platform {platform} and tag {tag}")


def _tagged(images: list[dict[str, Any]], tag: str) -> dict[str, Any] | None:
    """The first image of a Docker archive, or the one whose name ends in the tag."""
    named = (i for i in images if not tag or any(n.rpartition(":")[2] == tag for n in i.get("RepoTags") or ()))
    return next(named, None)


def apply_layer(tree: Tree, data: bytes) -> Tree:
    """Lay an image's layer (tar, perhaps gzipped) over a tree."""
    if data[:2] == GZIP:
        data = gzip.decompress(data)
    elif data[:4] == ZSTD:
        raise ArchiveError("layers compressed with zstd are read by BuildKit alone")
    with tarfile.open(fileobj=io.BytesIO(data)) as layer:
        for path, entry in entries(layer):
            folder, name = posixpath.split(path)
            if name == OPAQUE:
                tree = tree.without({p for p in tree.entries if p.startswith(f"{folder}/")})
            elif name.startswith(WHITEOUT):
                tree = tree.without({posixpath.join(folder, name[len(WHITEOUT) :])})
            elif not path:
                tree.entries[""] = entry
            else:
                old = tree.entries.get(path)
                if old is not None and old.kind == "dir" and entry.kind != "dir":
                    tree = tree.without({path})
                tree.entries[path] = entry
    return tree


def entries(
    archive: tarfile.TarFile, *, spool: Path | None = None, small: int = 64 * 1024
) -> Iterator[tuple[str, Entry]]:
    """Paths and entries of a tar file; contents above `small` bytes go to files in `spool` if that is given."""
    seen: dict[str, Blob] = {}
    for member in archive:
        path = clean(member.name)
        common = (member.mode & 0o7777, member.uid, member.gid, float(member.mtime))
        if member.isdir():
            yield path, Entry("dir", *common)
        elif member.issym():
            yield path, Entry("link", 0o777, *common[1:], target=member.linkname)
        elif member.islnk():
            yield path, Entry("file", *common, blob=seen[clean(member.linkname)])
        elif member.isfile():
            source = archive.extractfile(member)
            assert source is not None
            if spool is not None and member.size > small:
                target = spool / hashlib.sha256(path.encode()).hexdigest()
                with target.open("wb") as out:
                    while chunk := source.read(1 << 20):
                        out.write(chunk)
                blob = Blob(member.size, path=target)
            else:
                blob = Blob.of(source.read())
            seen[path] = blob
            yield path, Entry("file", *common, blob=blob)
        else:
            yield path, Entry("other", *common)
