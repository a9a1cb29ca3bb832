"""Images that leave a session: into Docker's store only when something changed, and with the layers asked for."""

from __future__ import annotations

import json
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from ci.engine import Options, Session

pytestmark = pytest.mark.containers

DOCKER = "docker"


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


def exported(name: str, content: str) -> list[str]:
    """Export an image with one file in a session of its own; the progress lines."""
    lines: list[str] = []
    session = Session(options=Options(progress=lines.append))
    query = f'{{container{{withNewFile(path:"/f", contents:"{content}"){{exportImage(name:"{name}")}}}}}}'
    status, answer = session.answer(query)
    session.close()
    assert (status, answer.get("errors")) == (200, None)
    return lines


def digest(name: str) -> str:
    """The image's digest in Docker's store; empty where it is not there."""
    done = subprocess.run([DOCKER, "image", "inspect", "--format", "{{.Id}}", name], capture_output=True, text=True)
    return done.stdout.strip()


def rewritten(lines: list[str]) -> bool:
    """Whether BuildKit wrote layers anew, which only an export does."""
    return any("rewriting layers" in line for line in lines)


def test_an_image_that_is_there_is_not_exported_again(name: str) -> None:
    """Nothing changed: the store keeps what it has and no layer is written."""
    assert rewritten(exported(name, "same"))
    before = digest(name)
    assert not rewritten(exported(name, "same"))
    assert digest(name) == before != ""


def test_a_change_is_exported(name: str) -> None:
    """Another file, another image under the name; and back again, which the name no longer has."""
    exported(name, "one")
    first = digest(name)
    exported(name, "two")
    second = digest(name)
    assert second not in ("", first)
    exported(name, "one")
    assert digest(name) == first


def test_an_image_that_was_removed_is_exported_again(name: str) -> None:
    """The note counts only while the store holds the image."""
    exported(name, "gone")
    before = digest(name)
    subprocess.run([DOCKER, "image", "rm", name], check=True, capture_output=True)
    assert digest(name) == ""
    exported(name, "gone")
    assert digest(name) == before


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
