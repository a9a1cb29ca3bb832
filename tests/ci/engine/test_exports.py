"""Images that leave a session: into Docker's store only what changed, dated, and with the layers asked for."""

from __future__ import annotations

import json
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from ci.engine import Options, Session
from ci.engine.build import shipping

pytestmark = pytest.mark.containers

DOCKER = "docker"
FROM = 'withFile(path:"/busybox", source:"%s"){'
KEPT = FROM + 'withExec(args:["/busybox","sh","-c","/busybox head -c 3000000 /dev/zero > /kept"]){'


@pytest.fixture
def name() -> Iterator[str]:
    """A name in Docker's store that nothing else has; taken away afterwards."""
    made = f"al-engine/export:{uuid4().hex[:12]}"
    yield made
    subprocess.run([DOCKER, "image", "rm", "--force", made], capture_output=True)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Notes of exports in a folder of this test."""
    monkeypatch.setenv("AGENT_LOOP_CACHE", str(tmp_path / "cache"))


def exported(name: str, content: str, steps: str = "") -> None:
    """Export an image with one file after other steps, in a session of its own."""
    session = Session(options=Options())
    if FROM in steps:
        made = session.answer('{host{file(path:"/bin/busybox"){id}}}')[1]
        steps = steps.replace(FROM, FROM % made["data"]["host"]["file"]["id"])
    chain = f'{steps}withNewFile(path:"/f", contents:"{content}"){{exportImage(name:"{name}")'
    status, answer = session.answer(f"{{container{{{chain}{'}' * (chain.count('{') + 2)}")
    session.close()
    assert (status, answer.get("errors")) == (200, None)


def inspected(name: str, what: str) -> str:
    """What Docker's store says of an image; empty where it is not there."""
    done = subprocess.run([DOCKER, "image", "inspect", "--format", what, name], capture_output=True, text=True)
    return done.stdout.strip()


def digest(name: str) -> str:
    return inspected(name, "{{.Id}}")


def files(name: str, target: Path) -> dict[str, tuple[bytes, float]]:
    """Content and time of every file of an image, as Docker saves it."""
    subprocess.run([DOCKER, "save", "--output", target, name], check=True)
    found: dict[str, tuple[bytes, float]] = {}
    with tarfile.open(target) as archive:
        for layer in json.load(archive.extractfile("manifest.json"))[0]["Layers"]:  # type: ignore[arg-type]
            with tarfile.open(fileobj=archive.extractfile(layer)) as opened:
                found |= {m.name: (opened.extractfile(m).read(), m.mtime) for m in opened if m.isfile()}  # type: ignore[union-attr]
    return found


def test_an_image_that_is_there_is_not_exported_again(name: str) -> None:
    """Nothing changed: the store keeps what it has and is given nothing."""
    exported(name, "same")
    before = inspected(name, "{{.Id}} {{.Metadata.LastTagTime}}")
    exported(name, "same")
    assert inspected(name, "{{.Id}} {{.Metadata.LastTagTime}}") == before != ""
    exported(name, "other")
    assert inspected(name, "{{.Metadata.LastTagTime}}") not in before


def test_a_change_is_exported(name: str) -> None:
    """Another file, another image under the name; and back again, which the name no longer has."""
    exported(name, "one")
    first = digest(name)
    exported(name, "two")
    second = digest(name)
    assert second not in ("", first)
    exported(name, "one")
    assert digest(name) == first


def test_only_a_changed_layer_is_brought_and_the_image_is_whole(name: str, tmp_path: Path) -> None:
    """The layer that stayed is in the image, which is the same one when it is made from nothing."""
    exported(name, "one", KEPT)
    layers = json.loads(inspected(name, "{{json .RootFS.Layers}}"))
    exported(name, "two", KEPT)
    again = json.loads(inspected(name, "{{json .RootFS.Layers}}"))
    assert again[:-1] == layers[:-1]
    assert again[-1] != layers[-1]
    found = files(name, tmp_path / "image.tar")
    assert found["kept"][0] == bytes(3_000_000)
    assert found["f"][0] == b"two"
    partly = digest(name)
    (tmp_path / "cache" / "exports.json").unlink()
    exported(name, "two", KEPT)
    assert digest(name) == partly


def test_an_image_that_was_removed_is_exported_again(name: str, tmp_path: Path) -> None:
    """The note counts only while the store holds the image: the same one again, or one that shares a layer with it."""
    exported(name, "x", KEPT)
    before = digest(name)
    for content in ("x", "y"):
        subprocess.run([DOCKER, "image", "rm", name], check=True, capture_output=True)
        assert digest(name) == ""
        exported(name, content, KEPT)
        assert files(name, tmp_path / "image.tar")["kept"][0] == bytes(3_000_000)
        assert (digest(name) == before) == (content == "x")


@pytest.mark.parametrize(("kept", "times"), [("", 1), (KEPT, 2)])
def test_a_removed_image_is_written_twice_only_for_layers_left_out(
    name: str, monkeypatch: pytest.MonkeyPatch, kept: str, times: int
) -> None:
    """Where no noted layer was left out the image is whole at once; gigabytes are not written again."""
    exported(name, "one", kept)
    subprocess.run([DOCKER, "image", "rm", name], check=True, capture_output=True)
    written: list[object] = []
    layout = shipping._layout

    def counted(*args: Any) -> Path:
        written.append(args)
        return layout(*args)

    monkeypatch.setattr(shipping, "_layout", counted)
    exported(name, "two", kept)
    assert len(written) == times
    assert digest(name) != ""


def test_a_store_that_lacks_a_noted_layer_gets_all_of_them(name: str, tmp_path: Path) -> None:
    """The image is there and one of its layers is not, as after a clean-up of content: nothing is left out then."""
    exported(name, "one", KEPT)
    path = tmp_path / "cache" / "exports.json"
    notes = json.loads(path.read_text())
    [note] = notes["images"].values()
    note[-1] = {before: [f"sha256:{uuid4().hex * 2}", size] for before, (_, size) in note[-1].items()}
    path.write_text(json.dumps(notes))
    exported(name, "two", KEPT)
    found = files(name, tmp_path / "image.tar")
    assert (found["kept"][0], found["f"][0]) == (bytes(3_000_000), b"two")


def test_layers_that_differ_in_times_only_are_one(name: str, tmp_path: Path) -> None:
    """A step that ran at another time leaves the same layers, dated as the image is."""
    base = FROM + 'withLabel(name:"org.opencontainers.image.created", value:"2026-01-02T03:04:05Z"){'
    step = 'withExec(args:["/busybox","sh","-c","%s"]){'
    script = "/busybox mkdir /d; echo made > /d/made; /busybox touch -d @2000000000 /d/later # "
    layers: list[str] = []
    for _ in range(2):
        exported(name, "x", base + step % (script + uuid4().hex))
        layers.append(inspected(name, "{{json .RootFS.Layers}}"))
        (tmp_path / "cache" / "exports.json").unlink()
    assert layers[0] == layers[1]
    found = files(name, tmp_path / "image.tar")
    assert {found[f"d/{f}"][1] for f in ("made", "later")} == {1767323045}


@pytest.mark.parametrize(("asked", "ending"), [("Zstd", "+zstd"), ("Gzip", "+gzip"), ("Uncompressed", ".tar")])
def test_layers_are_compressed_as_asked(tmp_path: Path, asked: str, ending: str) -> None:
    """`forcedCompression` decides the media type of every layer."""
    target = tmp_path / "image.tar"
    query = (
        f'{{container{{withNewFile(path:"/f", contents:"x"){{export(path:"{target}", forcedCompression:{asked})}}}}}}'
    )
    session = Session(options=Options())
    status, answer = session.answer(query)
    session.close()
    assert (status, answer.get("errors")) == (200, None)
    with tarfile.open(target) as archive:

        def read(path: str) -> dict[str, object]:
            member = archive.extractfile(path)
            assert member is not None
            return json.load(member)

        top = read("index.json")["manifests"][0]["digest"]  # type: ignore[index]
        layers = read(f"blobs/{top.replace(':', '/')}")["layers"]  # type: ignore[union-attr]
    assert [layer["mediaType"].endswith(ending) for layer in layers] == [True]  # type: ignore[index,union-attr]
