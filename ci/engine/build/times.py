"""Layers with the times of an image: no file newer than the moment that the image is dated.

BuildKit can do this itself (`rewrite-timestamp`), and does it anew for every layer at every export. Here a layer is
read and written once; what came of it is noted beside the image (`store.py`). Only times change: names, owners, modes,
order and content stay byte for byte, so equal layers stay equal.
"""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

BLOCK = 512
CHUNK = 1 << 20
PAX, PAX_GLOBAL, GNU_SPARSE = b"x", b"g", b"S"
GNU_LONG_NAME = (b"L", b"K")
WITHOUT_CONTENT = (b"1", b"2", b"3", b"4", b"5", b"6")
"""Kinds of entries that have no content whatever their size says: links, devices, folders, pipes."""


@dataclass(frozen=True)
class Layer:
    """An uncompressed layer: its digest, its size, and where it is (None: in the store that it is meant for)."""

    digest: str
    size: int
    path: Path | None = None


def manifest_of(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The manifest of the one image in an OCI layout, and its configuration."""

    def read(digest: str) -> dict[str, Any]:
        return json.loads((folder / "blobs" / digest.replace(":", "/")).read_text())

    manifest = read(json.loads((folder / "index.json").read_text())["manifests"][0]["digest"])
    if "manifests" in manifest:
        manifest = read(manifest["manifests"][0]["digest"])
    return manifest, read(manifest["config"]["digest"])


def dated(folder: Path, latest: int, known: Mapping[str, Layer]) -> dict[str, Layer]:
    """The layers of a layout by their digests before, dated at most `latest` (Unix seconds).

    Those in `known` are taken from there; the layout need not hold them. Of the others only the dated ones stay.
    """
    found: dict[str, Layer] = {}
    for layer in manifest_of(folder)[0]["layers"]:
        before = str(layer["digest"])
        if before in found:
            continue
        if before not in known:
            path = folder / "blobs" / before.replace(":", "/")
            target = path.with_suffix(".dated")
            with path.open("rb") as source, target.open("wb") as made:
                digest, size = rewrite(source, made, latest)
            path.unlink()  # an image with torch is gigabytes
            found[before] = Layer(digest, size, target)
        else:
            found[before] = known[before]
    return found


def rewrite(source: BinaryIO, target: BinaryIO, latest: int) -> tuple[str, int]:
    """Copy a tar archive with no time after `latest`; digest and size of the copy. Raises tarfile.ReadError."""
    total, size = hashlib.sha256(), 0

    def put(data: bytes) -> None:
        nonlocal size
        total.update(data)
        size += target.write(data)

    told: int | None = None  # the next entry's size, where its own header has no room for it
    while header := source.read(BLOCK):
        if len(header) < BLOCK:
            raise tarfile.ReadError("an archive ends within a header")
        if not header.strip(b"\0"):  # the end, and what pads it
            put(header)
            while data := source.read(CHUNK):
                put(data)
            break
        kind, length = header[156:157], _number(header[124:136])
        if kind == GNU_SPARSE:
            raise tarfile.ReadError("a sparse file in an image's layer")
        if kind in (PAX, PAX_GLOBAL):
            data = _read(source, length)
            records = _records(data)
            told = int(records[b"size"]) if kind == PAX and b"size" in records else None
            data = _joined(_clamped(records, latest))
            put(_header(header, len(data), latest))
            put(data + bytes(-len(data) % BLOCK))
            continue
        if kind not in GNU_LONG_NAME:
            length = 0 if kind in WITHOUT_CONTENT else length if told is None else told
            told = None
        put(_header(header, None, latest))
        left = length + -length % BLOCK
        while left:
            data = source.read(min(left, CHUNK))
            if not data:
                raise tarfile.ReadError("an archive ends within a file")
            put(data)
            left -= len(data)
    return f"sha256:{total.hexdigest()}", size


def _read(source: BinaryIO, length: int) -> bytes:
    data = source.read(length + -length % BLOCK)
    if len(data) < length:
        raise tarfile.ReadError("an archive ends within a header")
    return data[:length]


def _number(field: bytes) -> int:
    """A number of a header: octal digits, or two's complement where the first bit is set."""
    if field[0] & 0x80:
        return int.from_bytes(bytes([field[0] & 0x7F]) + field[1:], "big")
    return int(field.strip(b" \0") or b"0", 8)


def _header(header: bytes, length: int | None, latest: int) -> bytes:
    """A header dated at most `latest`, with another length where one is given."""
    made = bytearray(header)
    if length is not None:
        made[124:136] = b"%011o\0" % length
    if not header[136] & 0x40 and _number(header[136:148]) > latest:  # that bit: before 1970
        made[136:148] = b"%011o\0" % latest
    if bytes(made) == header:
        return header
    made[148:156] = b" " * 8
    made[148:156] = b"%06o\0 " % sum(made)
    return bytes(made)


def _records(data: bytes) -> dict[bytes, bytes]:
    """The records of an extended header: `LENGTH KEY=VALUE\\n`."""
    found: dict[bytes, bytes] = {}
    while data:
        length = int(data.partition(b" ")[0])
        key, _, value = data[:length].partition(b" ")[2].partition(b"=")
        found[key] = value[:-1]
        data = data[length:]
    return found


def _clamped(records: Mapping[bytes, bytes], latest: int) -> dict[bytes, bytes]:
    late = {k for k in (b"mtime", b"atime", b"ctime") if k in records and float(records[k]) > latest}
    return {k: b"%d" % latest if k in late else v for k, v in records.items()}


def _joined(records: Mapping[bytes, bytes]) -> bytes:
    lines: list[bytes] = []
    for key, value in records.items():
        rest = b" " + key + b"=" + value + b"\n"
        length = len(rest)
        while len(b"%d" % length) + len(rest) != length:
            length = len(b"%d" % length) + len(rest)
        lines.append(b"%d" % length + rest)
    return b"".join(lines)
