"""A function's image as a plain Dockerfile: the same files as the engine builds, and nothing of the engine in it."""

import hashlib
import json
import os
import platform
import re
import shlex
import subprocess
import tarfile
import uuid
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ci.engine.call import cli as call
from ci.engine.plan.cli import app
from ci.engine.schema import cache_folder
from tests.ci.call.conftest import copied

from .conftest import MODULES

BASE = "python:3.13-slim-trixie"
ENGINE_OWN = {"etc/hosts", "etc/resolv.conf", "etc/hostname"}
"""Written for each step by whoever runs it."""

CACHE = Path(os.environ.get("AGENT_LOOP_CACHE") or cache_folder())
LAYOUT = CACHE / "bases" / "python" / {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), "amd64")


@pytest.fixture
def webapp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The module that builds a runtime image, in a folder with a space in its name, on a base made here."""
    monkeypatch.setenv("AGENT_LOOP_BASES", "local")
    monkeypatch.setenv("AGENT_LOOP_CACHE", str(CACHE))
    folder = copied(MODULES / "webapp", tmp_path / "a module")
    monkeypatch.chdir(folder)
    return folder


def ejected(*words: str) -> str:
    """Run `dockerfile` with these words; returns what it told on standard error."""
    done = CliRunner().invoke(app, ["dockerfile", *words])
    assert done.exit_code == 0, done.output
    return done.stderr


def test_it_holds_no_secret_and_no_tool_of_the_engine(webapp: Path) -> None:
    """A secret becomes a mount that the build is given; no script, cache or folder of the engine is named."""
    (webapp / "token").write_text("very-secret")
    done = CliRunner().invoke(app, ["dockerfile", "test", "--token", "file://token", "-o", "out"])
    assert done.exit_code == 0, done.output
    text = (webapp / "out" / "Dockerfile").read_text()
    assert "very-secret" not in text
    assert re.search(r"--mount=type=secret,id=[\w-]+", text)
    assert "/.al" not in text
    assert "agent-loop-out" not in text


def test_a_folder_that_holds_something_is_left_alone(webapp: Path) -> None:
    """It is refused with the way out, and nothing in it changes."""
    (webapp / "out").mkdir()
    (webapp / "out" / "mine").write_text("kept")
    done = CliRunner().invoke(app, ["dockerfile", "build-runtime", "-o", "out"])
    assert done.exit_code == 1
    assert "Folder is not empty, out. Name another or add --force." in done.stderr
    assert [p.name for p in (webapp / "out").iterdir()] == ["mine"]


@pytest.mark.filterwarnings(
    "ignore:Exception ignored in.*FileIO:pytest.PytestUnraisableExceptionWarning"
)  # buildx's pipe
@pytest.mark.containers
def test_a_plain_build_gives_the_engines_files(webapp: Path) -> None:
    """Every path of the image is there either way, with the same kind, mode and content."""
    # Bytecode holds its source's time, which no build cache looks at: what another checkout left there must not serve.
    (webapp / "app" / "never-built.txt").write_text(uuid.uuid4().hex)
    told = ejected("--base", BASE, "build-runtime", "-o", "ejected folder")
    command = shlex.split(next(x for x in told.splitlines() if x.startswith("build it: ")).removeprefix("build it: "))
    plain = webapp / "plain.tar"
    base = f"{BASE}=oci-layout://{LAYOUT}@{digest(LAYOUT)}"  # what a registry would give
    words = [*command, "--build-context", base, "--output", f"type=tar,dest={plain}"]
    built = subprocess.run(words, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    assert call.program(["-s", "call", "--base", BASE, "build-runtime", "rootfs", "export", "--path", "engine"]) == 0
    ours, theirs = folder(webapp / "engine"), archive(plain)
    assert theirs["opt/app/main.py"][0] == "file 0644"
    assert {k: v for k, v in theirs.items() if ours.get(k) != v and k.startswith("opt/")} == {}
    assert ours.keys() ^ theirs.keys() == set()
    assert {k for k, v in theirs.items() if ours[k] != v} <= ENGINE_OWN


def digest(layout: Path) -> str:
    """The digest of the one image in an OCI layout."""
    return json.loads((layout / "index.json").read_text())["manifests"][0]["digest"]


def folder(root: Path) -> dict[str, tuple[str, str]]:
    """Path -> (kind with mode, content's hash or link's target) of all that lies in a folder."""
    found: dict[str, tuple[str, str]] = {}
    for path in root.rglob("*"):
        name = str(path.relative_to(root))
        mode = f"{path.lstat().st_mode & 0o7777:04o}"
        if path.is_symlink():
            found[name] = ("link", str(path.readlink()))
        elif path.is_dir():
            found[name] = (f"dir {mode}", "")
        elif path.is_file():
            found[name] = (f"file {mode}", hashlib.sha256(path.read_bytes()).hexdigest())
    return found


def archive(path: Path) -> dict[str, tuple[str, str]]:
    """The same of a tar archive."""
    found: dict[str, tuple[str, str]] = {}
    with tarfile.open(path) as tar:
        for item in tar:
            name, mode = item.name.strip("/").removeprefix("./"), f"{item.mode:04o}"
            if not name or name == ".":
                continue
            if item.issym():
                found[name] = ("link", item.linkname)
            elif item.isdir():
                found[name] = (f"dir {mode}", "")
            elif item.isfile() or item.islnk():
                source = tar.extractfile(item)
                assert source is not None
                found[name] = (f"file {mode}", hashlib.sha256(source.read()).hexdigest())
    return found
