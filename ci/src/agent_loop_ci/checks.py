"""What runs on the images: the test suite, the linter, the smoke test."""

from __future__ import annotations

from pathlib import Path

import dagger
from dagger import ReturnType

from agent_loop_ci import environment, stages
from agent_loop_ci.bases import PYTHON
from agent_loop_ci.errors import SuiteFailed, tail
from agent_loop_ci.labels import Release

REPORTS = "/reports"
ELSEWHERE = ("tests/trainer", "tests/service/backends/test_llamacpp.py", "tests/observability/test_grafana.py")
"""Tests that import what the test image has not: torch, a GGUF writer, Grafana's dashboard builder."""
TAIL = 60
"""Lines of the suite's output in the error of a failed suite."""


def suite(source: dagger.Directory, release: Release, select: str = "") -> dagger.Container:
    """The test container after the suite ran in it, whatever its outcome.

    `select` narrows the tests as pytest's `-k` does. Everything unmarked needs what a container cannot have, and is
    deselected.
    """
    words = [environment.PYTHON, "-m", "pytest", "-m", "in_image", *(f"--ignore={path}" for path in ELSEWHERE)]
    words += ["-p", "no:cacheprovider", f"--junit-xml={REPORTS}/junit.xml"]
    words += ["--cov=service", "--cov=observability", f"--cov-report=xml:{REPORTS}/coverage.xml"]
    words += ["-k", select] if select else []
    return (
        stages.test(source, release)
        .with_env_variable("COVERAGE_FILE", f"{REPORTS}/.coverage")
        .with_exec(words, expect=ReturnType.ANY)
    )


async def reports(ran: dagger.Container, *, keep: bool) -> dagger.Directory:
    """The folder with junit.xml and coverage.xml.

    Raises:
        SuiteFailed: the suite failed and `keep` is not set; the message ends with the tail of its output.
    """
    code = await ran.exit_code()
    if code and not keep:
        output = tail(await ran.stdout(), TAIL)
        raise SuiteFailed(
            f"The test suite failed with exit status {code}. Add --keep to have its reports all the same.\n{output}"
        )
    return ran.directory(REPORTS).with_new_file("exit-code", f"{code}\n")


def linted(source: dagger.Directory) -> dagger.Container:
    """A container in which ruff found nothing to say about the sources; ruff comes from the locked set `dev`."""
    script = "sed -n '/^ruff==/,/[^\\\\]$/p' /mnt/dev.txt > /requirements.txt"
    locked = (
        environment.python(PYTHON)
        .with_mounted_file("/mnt/dev.txt", source.file("requirements/dev.txt"))
        .with_exec(["sh", "-ec", script])
        .file("/requirements.txt")
    )
    ruff = f"{environment.VENV}/bin/ruff"
    return (
        stages.builder(source, "dev", requirements=locked)
        .with_directory("/src", source)
        .with_workdir("/src")
        .with_exec([ruff, "check", "--no-cache", "."])
        .with_exec([ruff, "format", "--no-cache", "--check", "."])
    )


def smoked(source: dagger.Directory, release: Release) -> dagger.Container:
    """The runtime image after the service in it was started, asked and stopped, all in one step."""
    text = Path(__file__).with_name("probe.py").read_text()
    return stages.runtime(source, release).with_exec([environment.PYTHON, "-c", text])
