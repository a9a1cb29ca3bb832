"""`agent-loop bases`: one clear line for everything that can go wrong, nothing left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ci.engine.bases import apt, build, store
from ci.engine.bases.cli import main
from ci.engine.bases.errors import BuildFailed
from ci.engine.bases.recipes import RECIPES

FAKE = """#!/bin/sh
# Stands in for mmdebstrap: writes the tar that the test prepared, to the argument that ends in .tar.
for word; do case "$word" in *.tar) target="$word";; esac; done
echo "I: installing remaining packages inside the chroot..."
{body}
"""


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and a machine whose apt and keys are there."""
    monkeypatch.setenv("AGENT_LOOP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("AGENT_LOOP_APT_MIRROR", "http://mirror.example/debian")
    monkeypatch.setattr(apt, "KEYRING", Path(__file__))
    return tmp_path / "cache" / "bases"


def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str) -> None:
    """Put a stand-in for mmdebstrap first on PATH."""
    program = tmp_path / "bin" / "mmdebstrap"
    program.parent.mkdir(exist_ok=True)
    program.write_text(FAKE.format(body=body))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")


def left_behind(bases: Path) -> list[str]:
    return sorted(p.name for p in bases.iterdir() if p.name not in (".lock", "index.json"))


EMPTY_TAR = 'tar -cf "$target" -T /dev/null'


def test_a_base_is_made_once_and_found_the_next_time(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The second call makes nothing; `--fresh` makes it again; the layout and the index are in place."""
    fake(tmp_path, monkeypatch, EMPTY_TAR)
    assert main(["build", "python"]) == 0
    assert ": made," in capsys.readouterr().out
    assert main(["build", "python"]) == 0
    assert "there already" in capsys.readouterr().out
    assert main(["build", "python", "--fresh"]) == 0
    assert ": made," in capsys.readouterr().out
    assert left_behind(cache) == ["python"]
    assert store.resolve("python:3.13-slim-trixie") == cache / "python" / store.host_arch()


def test_a_failure_keeps_what_was_there_and_says_why(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """mmdebstrap's own reason is in the line; the base of before still answers; no temporary folder stays."""
    fake(tmp_path, monkeypatch, EMPTY_TAR)
    assert main(["build", "python"]) == 0
    before = store.read_record("python", store.host_arch())
    fake(tmp_path, monkeypatch, 'echo "E: no such package: python3" >&2; exit 25')
    assert main(["build", "python", "--fresh"]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "no such package: python3" in error
    assert "--verbose" in error
    assert store.read_record("python", store.host_arch()) == before
    assert left_behind(cache) == ["python"]


def test_a_full_disk_is_named(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The way out of a full disk is not --verbose."""
    fake(tmp_path, monkeypatch, 'echo "E: write failed: No space left on device"; exit 1')
    with pytest.raises(BuildFailed, match="Free disk space"):
        build.build("python", store.host_arch(), say=lambda _: None)


def test_an_unknown_base_names_those_there_are(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Wrong words are exit status 2."""
    assert main(["build", "pyhton"]) == 2
    error = capsys.readouterr().err
    assert "'pyhton'" in error
    assert all(name in error for name in RECIPES)


def test_a_missing_tool_says_what_to_install(
    cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without mmdebstrap the line is a command to run."""
    monkeypatch.setenv("PATH", "/nowhere")
    assert main(["build"]) == 1
    assert "apt-get install mmdebstrap" in capsys.readouterr().err


def test_a_foreign_architecture_without_emulation_says_so(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Package scripts of another architecture have to run, so something must run them."""
    fake(tmp_path, monkeypatch, EMPTY_TAR)
    assert main(["build", "--arch", "riscv64"]) == 1
    assert "cannot run riscv64 programs" in capsys.readouterr().err


def test_an_interrupt_ends_the_build_and_leaves_nothing(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C reaches mmdebstrap, the temporary folder goes, the exit status is 130."""
    pid = tmp_path / "pid"
    fake(tmp_path, monkeypatch, f"echo $$ > {pid}.part; mv {pid}.part {pid}; exec sleep 300")
    code = (
        "import sys; from pathlib import Path; from ci.engine.bases import apt, cli;"
        f"apt.KEYRING = Path({str(__file__)!r}); sys.exit(cli.main(['build', 'python']))"
    )
    process = subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parents[3])
    try:
        end = time.monotonic() + 60
        while not pid.exists() and time.monotonic() < end:
            time.sleep(0.05)
        started = int(pid.read_text())
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
    finally:
        process.kill()
        process.wait()
    with pytest.raises(ProcessLookupError):
        os.kill(started, 0)
    assert left_behind(cache) == []


def test_what_a_killed_build_left_is_swept_by_the_next(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A temporary folder of a process that was killed does not stay for ever."""
    fake(tmp_path, monkeypatch, EMPTY_TAR)
    (cache / ".building-old").mkdir(parents=True)
    assert main(["build", "python"]) == 0
    assert left_behind(cache) == ["python"]


def test_the_command_checks_signatures_and_leaves_device_nodes_out(tmp_path: Path) -> None:
    """mmdebstrap gets the keyring by its sources line, and the recipe's packages and folders."""
    words = build.command(RECIPES["prometheus"], "amd64", ["deb [signed-by=/k] http://m trixie main"], tmp_path / "r")
    assert words[-1].startswith("deb [signed-by=")
    assert "--include=ca-certificates,prometheus" in words
    assert "--skip=output/dev" in words
    assert any("chown -R 65534:65534" in word and "/prometheus" in word for word in words)
