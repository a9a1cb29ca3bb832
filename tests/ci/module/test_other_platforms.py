"""The runtime image for arm64, made on a machine that runs no arm64 program: the last stage only copies.

The base here is a stand-in for Debian's, with next to nothing in it: what a base holds decides nothing in this build.
That the image starts is for an arm64 machine to show; nothing here could run it.
"""

from __future__ import annotations

import io
import json
import platform
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ci.engine.bases import oci, store
from ci.engine.bases.recipes import EPOCH, RECIPES
from tests.command import agent_loop

pytestmark = pytest.mark.containers

AARCH64 = 183
"""`e_machine` of an ELF file for this architecture (ELF specification, EM_AARCH64)."""

OTHER = "amd64" if platform.machine() in ("aarch64", "arm64") else "arm64"


def call(cache: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """`agent-loop call` with only the bases of this folder."""
    return agent_loop("call", *words, AGENT_LOOP_CACHE=str(cache), AGENT_LOOP_BASES="local")


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """A cache with this machine's own base and no other."""
    own = store.layout("python", store.host_arch())
    assert own.is_dir(), f"There is no base in {own}. Run 'agent-loop bases build'."
    folder = tmp_path / "cache" / "bases"
    (folder / "python").mkdir(parents=True)
    (folder / "python" / store.host_arch()).symlink_to(own)
    (folder / "index.json").write_text(json.dumps(store.references()))
    return folder.parent


def stand_in(cache: Path, tmp_path: Path) -> None:
    """Add a base for arm64 that holds one file."""
    tar = tmp_path / "root.tar"
    with tarfile.open(tar, "w") as archive:
        member = tarfile.TarInfo("./etc/debian_version")
        member.size, member.mtime = 5, EPOCH
        archive.addfile(member, io.BytesIO(b"13.0\n"))
    oci.write_layout(RECIPES["python"], "arm64", tar, cache / "bases" / "python" / "arm64")


class Tarball:
    """An image in the file that `as-tarball` gives."""

    def __init__(self, archive: tarfile.TarFile) -> None:
        self._archive = archive
        manifest = self._json("index.json")["manifests"][0]
        self.manifest = self._json(blob(manifest["digest"]))
        if "manifests" in self.manifest:
            self.manifest = self._json(blob(self.manifest["manifests"][0]["digest"]))
        self.config = self._json(blob(self.manifest["config"]["digest"]))

    def _json(self, name: str) -> dict[str, Any]:
        stream = self._archive.extractfile(name)
        assert stream
        return json.loads(stream.read())

    def files(self) -> Iterator[tuple[str, bytes]]:
        """Path and first 20 bytes of every regular file, links left out."""
        for layer in self.manifest["layers"]:
            with tarfile.open(fileobj=self._archive.extractfile(blob(layer["digest"]))) as content:
                for member in content:
                    if member.isfile():
                        stream = content.extractfile(member)
                        yield member.name.removeprefix("./"), stream.read(20) if stream else b""


def blob(digest: str) -> str:
    return "blobs/" + digest.replace(":", "/")


@pytest.mark.skipif(OTHER == "amd64", reason="this is an arm64 machine: its own build is no foreign one")
@pytest.mark.slow
def test_every_program_and_library_in_it_is_for_that_platform(cache: Path, tmp_path: Path) -> None:
    """Wheels, the library copied from Debian, and what the image says of itself."""
    stand_in(cache, tmp_path)
    target = tmp_path / "arm.tar"
    done = call(cache, "build-runtime", "--platform=linux/arm64", "as-tarball", f"--output={target}")
    assert done.returncode == 0, done.stderr[-4000:]
    with tarfile.open(target) as archive:
        image = Tarball(archive)
        files = list(image.files())
    assert image.config["architecture"] == "arm64"
    machines = {name: int.from_bytes(start[18:20], "little") for name, start in files if start[:4] == b"\x7fELF"}
    assert {name for name, machine in machines.items() if machine != AARCH64} == set()
    names = {name for name, _ in files}
    assert any(name.startswith("usr/lib/aarch64-linux-gnu/libgomp.so") for name in names)
    assert any("pydantic_core" in name for name in machines)
    assert "app/service/__main__.py" in names


def test_without_a_base_for_it_the_line_says_what_to_make(cache: Path, tmp_path: Path) -> None:
    """Reference and platform are named, and the command."""
    done = call(cache, "build-runtime", f"--platform=linux/{OTHER}", "as-tarball", f"--output={tmp_path / 'x.tar'}")
    assert done.returncode != 0
    assert f"python:3.13-slim-trixie (linux/{OTHER})" in done.stderr
    assert f"agent-loop bases build python --arch {OTHER}" in done.stderr
    assert not (tmp_path / "x.tar").exists()
