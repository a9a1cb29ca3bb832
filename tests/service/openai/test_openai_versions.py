"""The client suite (`test_openai_client.py`, `test_openai_responses.py`) on older releases, each laid over ours."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
SUITE = [ROOT / "tests" / "service" / "openai" / f"test_openai_{part}.py" for part in ("client", "responses")]

VERSIONS = ("1.109.1", "2.54.0")
"""The oldest generation and the last of the one before; the installed one runs with every other test."""


@pytest.mark.slow
@pytest.mark.parametrize("wanted", VERSIONS)
def test_the_suite_passes(tmp_path: Path, wanted: str) -> None:
    """What people have installed works: every test of the client suite, on that release."""
    uv = shutil.which("uv") or str(Path(sys.executable).with_name("uv"))
    overlay = tmp_path / "overlay"
    # Without its dependencies, which are here already in newer releases; `distro` alone was dropped since.
    command = [uv, "pip", "install", "--quiet", "--no-deps", "--target", str(overlay), f"openai=={wanted}", "distro"]
    done = subprocess.run([*command, "--python", sys.executable], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    environment = {**os.environ, "PYTHONPATH": str(overlay)}
    told = subprocess.run(
        [sys.executable, "-c", "import openai; print(openai.__version__)"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert told.stdout.strip() == wanted, told.stderr
    suite = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "default", *map(str, SUITE)],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert suite.returncode == 0, suite.stdout[-6000:]


def test_the_versions_are_three_generations() -> None:
    """With the installed one: no two of the same major release."""
    majors = [int(each.split(".")[0]) for each in (*VERSIONS, version("openai"))]
    assert majors == sorted(set(majors))
    assert len(majors) == 3
