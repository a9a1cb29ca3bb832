"""The hourly loop and its metrics."""

from __future__ import annotations

import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
from prometheus_client import CollectorRegistry

from observability.backup import capture
from observability.backup.repository import Repository
from observability.backup.schedule import Schedule
from observability.backup.sources import Places
from tests.fakes.programs import free_port
from tests.observability.backup.trees import NOW

pytestmark = pytest.mark.in_image


class TestSchedule:
    """The hourly loop and its metrics."""

    def test_success_and_failure_are_counted(self, repository: Repository, checkpoints: Path, tmp_path: Path) -> None:
        """A success moves the time and the sizes; a failure counts and leaves the time of the last success."""
        registry = CollectorRegistry()
        schedule = Schedule(repository, ["checkpoints"], Places(checkpoints=checkpoints), registry)

        def value(name: str) -> float | None:
            return registry.get_sample_value(name, {"what": "checkpoints"})

        assert value("backup_last_success_timestamp_seconds") == 0
        assert schedule.turn(NOW)
        assert value("backup_last_success_timestamp_seconds") == NOW.timestamp()
        assert value("backup_snapshots") == 1
        assert value("backup_size_bytes") == sum(
            path.stat().st_size for path in capture.walk(checkpoints) if not path.is_symlink()
        )
        checkpoints.rename(tmp_path / "gone")
        assert not schedule.turn(NOW + timedelta(hours=1))
        assert value("backup_failures_total") == 1
        assert value("backup_last_success_timestamp_seconds") == NOW.timestamp()

    def test_a_restart_knows_the_last_success(self, repository: Repository, checkpoints: Path) -> None:
        """The alert on stale backups does not fire only because the container was replaced."""
        repository.create("checkpoints", {"r": checkpoints}, now=NOW)
        registry = CollectorRegistry()
        Schedule(repository, ["checkpoints"], Places(), registry)
        name = "backup_last_success_timestamp_seconds"
        assert registry.get_sample_value(name, {"what": "checkpoints"}) == NOW.timestamp()

    def test_the_loop_is_a_program(self, checkpoints: Path, tmp_path: Path) -> None:
        """`backup loop` makes its first backup at once, serves metrics and health, and ends on SIGTERM."""
        port = free_port()
        command = [sys.executable, "-m", "observability", "backup", "loop", "--what", "checkpoints"]
        command += ["--checkpoints", str(checkpoints), "--backups", str(tmp_path / "b"), "--port", str(port)]
        process = subprocess.Popen([*command, "--host", "127.0.0.1"], cwd=Path(__file__).parents[3])
        try:
            deadline = time.monotonic() + 60
            text = ""
            while 'backup_snapshots{what="checkpoints"} 1.0' not in text:
                assert time.monotonic() < deadline, text
                assert process.poll() is None
                time.sleep(0.1)
                try:
                    text = httpx.get(f"http://127.0.0.1:{port}/metrics").text
                except httpx.TransportError:
                    continue
            health = [sys.executable, "-m", "observability.healthcheck", str(port)]
            assert subprocess.run(health, cwd=Path(__file__).parents[3]).returncode == 0
        finally:
            process.terminate()
        assert process.wait(20) == 0
        assert subprocess.run(health, cwd=Path(__file__).parents[3], capture_output=True).returncode == 1
