"""`agent-loop call test`: the suite runs in the test image, its reports come back, a failing test fails the call."""

from __future__ import annotations

import shutil
import subprocess
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from tests.ci.module.conftest import ROOT
from tests.command import agent_loop

pytestmark = [pytest.mark.containers, pytest.mark.slow, pytest.mark.timeout(1800)]

READ = ("ci", "service", "observability", "tests", "docs", "trainer", "models", "requirements")
FILES = ("README.md", "Makefile", "pyproject.toml", "dagger.json")

PROBES = """
import pytest

pytestmark = pytest.mark.in_image


def test_probe_that_holds() -> None:
    import service.settings

    assert service.settings


def test_probe_that_does_not_hold() -> None:
    assert [1, 2] == [1, 3], "the reason of this failure"
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the repository with two more tests, one of which fails."""
    folder = tmp_path_factory.mktemp("source")
    for name in READ:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", ".*"))
    for name in FILES:
        shutil.copy(ROOT / name, folder)
    (folder / "tests" / "test_probe.py").write_text(PROBES)
    return folder


def call(source: Path, select: str, *words: str) -> subprocess.CompletedProcess[str]:
    """`agent-loop call test` on the copy, with the tests that `select` matches."""
    return agent_loop("call", "test", f"--source={source}", f"--select={select}", *words)


def outcomes(reports: Path) -> dict[str, bool]:
    """Test -> whether it passed, of a JUnit report."""
    cases = ET.parse(reports / "junit.xml").getroot().iter("testcase")
    return {case.attrib["name"]: case.find("failure") is None for case in cases}


def test_reports_of_a_suite_that_passes_come_back(source: Path, tmp_path: Path) -> None:
    """JUnit names the tests, coverage the packages that are measured."""
    done = call(source, "test_probe_that_holds", "export", f"--path={tmp_path / 'reports'}")
    assert done.returncode == 0, done.stderr[-4000:]
    assert outcomes(tmp_path / "reports") == {"test_probe_that_holds": True}
    measured = ET.parse(tmp_path / "reports" / "coverage.xml").getroot().iter("class")
    assert any(c.attrib["filename"].endswith("settings.py") for c in measured)
    assert (tmp_path / "reports" / "exit-code").read_text() == "0\n"


def test_a_failing_test_fails_the_call_with_the_end_of_its_output(source: Path, tmp_path: Path) -> None:
    """The message names the test and its reason, and how to have the reports; nothing is written."""
    done = call(source, "test_probe", "export", f"--path={tmp_path / 'reports'}")
    assert done.returncode != 0
    assert "The test suite failed with exit status 1. Add --keep" in done.stderr
    assert "FAILED tests/test_probe.py::test_probe_that_does_not_hold" in done.stderr
    assert "the reason of this failure" in done.stderr
    assert not (tmp_path / "reports").exists()


def test_keep_returns_the_reports_of_a_failed_suite(source: Path, tmp_path: Path) -> None:
    """For CI, which shows them and then fails by the file `exit-code`."""
    done = call(source, "test_probe", "--keep", "export", f"--path={tmp_path / 'reports'}")
    assert done.returncode == 0, done.stderr[-4000:]
    assert outcomes(tmp_path / "reports") == {"test_probe_that_holds": True, "test_probe_that_does_not_hold": False}
    assert (tmp_path / "reports" / "exit-code").read_text() == "1\n"
