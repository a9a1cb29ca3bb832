"""Layers dated here: nothing newer than the image, nothing else changed."""

from __future__ import annotations

import hashlib
import io
import tarfile

import pytest

from ci.engine.build.times import rewrite

LATEST = 1_000_000
XATTR = "SCHILY.xattr.security.capability"


def member(name: str, mtime: float, content: bytes = b"", **more: object) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.mtime, info.size = mtime, len(content)  # type: ignore[assignment]
    for key, value in more.items():
        setattr(info, key, value)
    return info, content


def archive(*members: tuple[tarfile.TarInfo, bytes], kind: int = tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=kind) as made:
        for info, content in members:
            made.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def dated(data: bytes) -> bytes:
    target = io.BytesIO()
    digest, size = rewrite(io.BytesIO(data), target, LATEST)
    assert (digest, size) == (f"sha256:{hashlib.sha256(target.getvalue()).hexdigest()}", len(target.getvalue()))
    return target.getvalue()


def everything(mtime: float) -> list[tuple[tarfile.TarInfo, bytes]]:
    """An entry of every kind that a layer has, with long names, attributes and times of a fraction."""
    return [
        member("d", mtime, type=tarfile.DIRTYPE, mode=0o1777),
        member("d/file", mtime, b"x" * 700, uid=10001, gid=7, mode=0o4755),
        member("d/" + "long" * 60, mtime, b"y" * 512),
        member("d/link", mtime, type=tarfile.SYMTYPE, linkname="file"),
        member("d/far", mtime, type=tarfile.SYMTYPE, linkname="t" * 150),
        member("d/hard", mtime, type=tarfile.LNKTYPE, linkname="d/file"),
        member("d/pipe", mtime, type=tarfile.FIFOTYPE),
        member("d/able", mtime, b"z", pax_headers={XATTR: "\x01\x00\x00\x02", "atime": str(mtime)}),
        member("d/owner", mtime, b"", uid=3_000_000),
    ]


def told(data: bytes) -> list[tuple[object, ...]]:
    """All of every entry but its time."""
    with tarfile.open(fileobj=io.BytesIO(data)) as opened:
        return [
            (m.name, m.type, m.mode, m.uid, m.gid, m.size, m.linkname, m.pax_headers.get(XATTR),
             opened.extractfile(m).read() if m.isreg() else b"")  # type: ignore[union-attr]
            for m in opened
        ]  # fmt: skip


@pytest.mark.parametrize("kind", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
@pytest.mark.parametrize("mtime", [LATEST + 1, 2_000_000_000, 2_000_000_000.25])
def test_what_is_newer_is_dated_and_nothing_else_changes(kind: int, mtime: float) -> None:
    """Every kind of entry keeps its name, owner, mode, attributes and content, and gets the image's time."""
    before = archive(*everything(mtime), kind=kind)
    after = dated(before)
    assert told(after) == told(before)
    with tarfile.open(fileobj=io.BytesIO(after)) as opened:
        members = opened.getmembers()
    assert {m.mtime for m in members} == {LATEST}
    assert {float(m.pax_headers.get("atime", LATEST)) for m in members} == {LATEST}


def test_what_is_older_stays_byte_for_byte() -> None:
    """A layer that has nothing newer is the same layer."""
    before = archive(*everything(LATEST), *everything(12.5), *everything(0))
    assert dated(before) == before


def test_layers_that_differ_in_times_only_become_one() -> None:
    """The moment at which a step ran does not reach the layer."""
    assert dated(archive(*everything(LATEST + 10))) == dated(archive(*everything(LATEST + 999)))


@pytest.mark.parametrize("cut", [700, 1024 + 100, 200])
def test_an_archive_that_ends_early_is_refused(cut: int) -> None:
    """Half a layer is no layer."""
    with pytest.raises(tarfile.ReadError):
        dated(archive(member("f", 0, b"x" * 2000))[:cut])
