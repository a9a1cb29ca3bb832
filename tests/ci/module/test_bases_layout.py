"""A base as an OCI image layout: right by its specification, equal for equal input."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from ci.engine.bases import build, oci, store
from ci.engine.bases.recipes import EPOCH, RECIPES

STATUS = """Package: python3
Status: install ok installed
Version: 3.13.5-1
Description: text
 with a line: that looks like a field

Package: apt
Version: 3.0.4
"""


def root_file_system(path: Path) -> Path:
    """A tar with a dpkg status file and one more file, dated EPOCH."""
    with tarfile.open(path, "w") as archive:
        for name, data in {"./var/lib/dpkg/status": STATUS.encode(), "./bin/sh": b"x" * 1000}.items():
            member = tarfile.TarInfo(name)
            member.size, member.mtime = len(data), EPOCH
            archive.addfile(member, io.BytesIO(data))
    return path


def blob(folder: Path, digest: str) -> bytes:
    data = (folder / "blobs" / "sha256" / digest.removeprefix("sha256:")).read_bytes()
    assert "sha256:" + hashlib.sha256(data).hexdigest() == digest
    return data


def read(folder: Path) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Index, manifest and configuration, each found through the digest that names it."""
    index = json.loads((folder / "index.json").read_text())
    manifest = json.loads(blob(folder, index["manifests"][0]["digest"]))
    return index, manifest, json.loads(blob(folder, manifest["config"]["digest"]))


def test_every_descriptor_points_at_a_blob_of_that_digest_and_size(tmp_path: Path) -> None:
    """Index, manifest, configuration and layer hold together, and the layer is the file system itself."""
    tar = root_file_system(tmp_path / "root.tar")
    content = tar.read_bytes()
    digest = oci.write_layout(RECIPES["python"], "amd64", tar, tmp_path / "layout")
    index, manifest, config = read(tmp_path / "layout")
    assert index["manifests"][0]["digest"] == digest
    layer = manifest["layers"][0]
    assert blob(tmp_path / "layout", layer["digest"]) == content
    assert layer["size"] == len(content)
    assert config["rootfs"]["diff_ids"] == ["sha256:" + hashlib.sha256(content).hexdigest()]
    assert json.loads((tmp_path / "layout" / "oci-layout").read_text()) == {"imageLayoutVersion": "1.0.0"}


def test_equal_input_gives_an_equal_digest(tmp_path: Path) -> None:
    """Neither the clock nor the folder's name gets in."""
    digests = {
        oci.write_layout(RECIPES["python"], "amd64", root_file_system(tmp_path / f"{n}.tar"), tmp_path / n)
        for n in ("a", "b")
    }
    assert len(digests) == 1


def test_the_configuration_says_platform_path_and_user(tmp_path: Path) -> None:
    """What a container engine needs to start a stand-in as the recipe says."""
    oci.write_layout(RECIPES["prometheus"], "arm64", root_file_system(tmp_path / "t.tar"), tmp_path / "l")
    index, _, config = read(tmp_path / "l")
    assert (config["os"], config["architecture"]) == ("linux", "arm64")
    assert index["manifests"][0]["platform"] == {"architecture": "arm64", "os": "linux"}
    assert config["config"]["User"] == "65534:65534"
    assert config["config"]["Entrypoint"] == ["/usr/bin/prometheus"]
    assert "/usr/bin" in config["config"]["Env"][0]
    assert config["created"] == "2025-01-01T00:00:00Z"


def test_packages_and_size_are_read_from_the_file_system(tmp_path: Path) -> None:
    """A continuation line that looks like a field is none."""
    size, packages = build.inspect(root_file_system(tmp_path / "t.tar"))
    assert packages == {"python3": "3.13.5-1", "apt": "3.0.4"}
    assert size == 1000 + len(STATUS)


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_a_stand_in_that_serves_never_runs_as_root(name: str) -> None:
    """A base with an entrypoint has a numeric user that is not root, and its program's absolute path."""
    recipe = RECIPES[name]
    if recipe.entrypoint:
        user, _, group = recipe.user.partition(":")
        assert int(user) > 0
        assert int(group) > 0
        assert recipe.entrypoint[0] == recipe.binary
        assert recipe.binary.startswith("/")
    else:
        assert recipe.user == ""  # steps that build on it install packages


def test_a_changed_recipe_has_another_hash() -> None:
    """The hash decides whether a base is made again, so the package list and the architecture are in it."""
    from dataclasses import replace

    recipe = RECIPES["python"]
    assert recipe.digest("amd64") == replace(recipe).digest("amd64")
    others = {replace(recipe, packages=("python3",)).digest("amd64"), recipe.digest("arm64")}
    assert recipe.digest("amd64") not in others
    assert len(others) == 2


def test_a_reference_finds_its_stand_in_with_or_without_registry_and_digest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pin file's full reference and a person's short one mean the same base; an unknown one means none."""
    monkeypatch.setenv("AGENT_LOOP_CACHE", str(tmp_path))
    short, full = "python:3.13-slim-trixie", "docker.io/library/python:3.13-slim-trixie@sha256:" + "0" * 64
    assert store.resolve(short, "amd64") is None  # not made yet
    folder = tmp_path / "bases" / "python" / "amd64"
    digest = oci.write_layout(RECIPES["python"], "amd64", root_file_system(tmp_path / "t.tar"), folder)
    store.write_record(
        folder, store.Record("python", "amd64", "hash", digest, "/usr/bin/python3.13", 1, {"apt": "3.0.4"})
    )
    assert store.resolve(short, "amd64") == folder
    assert store.resolve(full, "amd64") == folder
    assert store.resolve(full, "arm64") is None
    assert store.resolve("alpine:3", "amd64") is None


def test_a_half_written_record_counts_as_not_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A damaged layout is made again, not trusted."""
    monkeypatch.setenv("AGENT_LOOP_CACHE", str(tmp_path))
    folder = store.layout("python", "amd64")
    folder.mkdir(parents=True)
    (folder / "record.json").write_text('{"name": "pyt')
    assert store.read_record("python", "amd64") is None
