"""The runtime image built twice from nothing: two manifests of one digest."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from tests.ci.module.conftest import ROOT

pytestmark = [pytest.mark.containers, pytest.mark.slow, pytest.mark.timeout(1800)]

SCRIPT = 'script = "\\n".join(\n        [\n'
"""How the module begins each of its shell scripts."""


def from_nothing(folder: Path) -> Path:
    """A copy of the module whose every step is new to the builder, and whose caches are empty.

    A builder of one's own would be the plain way, and needs an image that may be out of reach. Instead each script
    gets a first line that does nothing, and each cache another name; neither is part of the image.
    """
    nonce = secrets.token_hex(6)
    shutil.copytree(ROOT / "service", folder / "service", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "ci" / "src", folder / "ci" / "src", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "ci" / "pyproject.toml", folder / "ci")
    shutil.copy(ROOT / "dagger.json", folder)
    (folder / "requirements").mkdir()
    for name in ("service.txt", "uv.txt"):
        shutil.copy(ROOT / "requirements" / name, folder / "requirements")
    package = folder / "ci" / "src" / "agent_loop_ci"
    steps = (package / "environment.py").read_text()
    assert steps.count(SCRIPT) == 5, "a script that does not begin like the others would be taken from a cache"
    (package / "environment.py").write_text(steps.replace(SCRIPT, f'{SCRIPT}            ": {nonce}",\n'))
    caches = (package / "caches.py").read_text()
    assert caches.count('"agent-loop-') == 6
    (package / "caches.py").write_text(caches.replace('"agent-loop-', f'"al-test-{nonce}-'))
    return folder


def digest(folder: Path, target: Path) -> str:
    """Build the image of a copy and give its manifest's digest."""
    words = ["call", "--created=2026-01-02T03:04:05Z", "build-runtime", "as-tarball", f"--output={target}"]
    program = Path(sys.executable).with_name("agent-loop")
    done = subprocess.run(
        [program, *words], cwd=folder, env=dict(os.environ), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert "al-test-" in done.stderr, "the copy was not what was built"
    with tarfile.open(target) as archive:
        index = archive.extractfile("index.json")
        assert index
        return json.loads(index.read())["manifests"][0]["digest"]


def layers(target: Path) -> list[list[str]]:
    """What each layer holds, for the message of a failure: path, size, time, mode, owner."""
    found: list[list[str]] = []
    with tarfile.open(target) as archive:
        for name in sorted(n for n in archive.getnames() if n.startswith("blobs/sha256/")):
            try:
                with tarfile.open(fileobj=archive.extractfile(name)) as layer:
                    found.append([f"{m.name} {m.size} {m.mtime} {m.mode:o} {m.uid}:{m.gid}" for m in layer])
            except tarfile.TarError:
                continue  # a manifest or a configuration
    return found


def test_two_builds_from_empty_caches_give_one_digest(tmp_path: Path) -> None:
    """Neither the clock, nor a cache's state, nor the order of work reaches the image."""
    digests = [digest(from_nothing(tmp_path / name), tmp_path / f"{name}.tar") for name in ("a", "b")]
    lines = [{line for layer in layers(tmp_path / f"{name}.tar") for line in layer} for name in ("a", "b")]
    assert sorted(lines[0] ^ lines[1])[:20] == []
    assert digests[0] == digests[1]
