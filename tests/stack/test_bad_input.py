"""What a person can get wrong: one clear line with value, place and fix, its own status, a state to go on from."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from ci.stack import machine, project, secrets, up
from ci.stack.errors import NotReady, UsageError
from ci.stack.project import Project
from ci.stack.reporting import reported
from ci.stack.up import Context
from ci.stack.wanted import PORTS
from tests.command import agent_loop
from tests.fakes import postgres
from tests.fakes.programs import free_port
from tests.stack.running import stack
from tests.stack.test_doctor import HEALTHY

CONTEXT = Context(lambda line: None, lambda lines: None)


def call(*words: str, **environment: str) -> tuple[int, str]:
    """Exit status and all that `agent-loop WORDS` says."""
    done = agent_loop(*words, **environment)
    return done.returncode, done.stdout + done.stderr


@pytest.fixture
def full(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own without a free byte."""
    if os.geteuid() != 0:
        pytest.skip("a file system of its own takes root")
    folder = tmp_path / "full"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip("mounting is not allowed here")
    try:
        with (folder / "filler").open("wb", buffering=0) as filler:
            try:
                while True:
                    filler.write(bytes(4096))
            except OSError:
                pass
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


class TestNothingStarted:
    """Words about a stack that is not there yet."""

    @pytest.mark.parametrize("words", [("ps",), ("logs",), ("logs", "--train"), ("stats",), ("shell",)])
    def test_is_said_with_what_starts_it(self, words: tuple[str, ...], tmp_path: Path) -> None:
        code, said = call(*words, AGENT_LOOP_STATE=str(tmp_path))
        train = " train" if "--train" in words else ""
        assert (code, said) == (1, f"agent-loop: Nothing was started from here yet. Start it: agent-loop up{train}.\n")

    def test_there_is_nothing_to_stop(self, tmp_path: Path) -> None:
        code, said = call("down", AGENT_LOOP_STATE=str(tmp_path))
        assert (code, said) == (0, "Nothing was started from here: nothing to stop.\n")


class TestFullDisk:
    """A disk that takes nothing more."""

    def test_is_one_line_with_its_own_status(
        self, full: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """No traceback, the place, status 6; once there is room the same goes on from there."""
        monkeypatch.setenv("AGENT_LOOP_STATE", str(full))

        @reported
        def make() -> None:
            secrets.ensure(project.state_folder())

        with pytest.raises(typer.Exit) as ended:
            make()
        assert ended.value.exit_code == 6
        assert capsys.readouterr().err == (
            f"agent-loop: No space left on device, {full}. Free space there, and run it again.\n"
        )
        (full / "filler").unlink()
        make()
        assert secrets.show(full, "grafana")

    def test_is_seen_before_anything_starts(self, full: Path) -> None:
        """`doctor` names the folder and the variable that moves it, with status 1."""
        status, said = call("doctor", "--offline", AGENT_LOOP_STATE=str(full), COLUMNS="300")
        assert status == 1
        assert f"0.0 MiB free in {full}" in said

    @pytest.mark.containers
    def test_up_starts_nothing_on_it(self, full: Path) -> None:
        """Status 6 and the same words, before a secret or an image is made."""
        ports = {variable: str(free_port()) for variable in PORTS["dev"]}
        place = {"AGENT_LOOP_STATE": str(full), "AGENT_LOOP_PROJECT": "al-test-full"}
        status, said = call("up", "--offline", **place, **ports, AGENT_NETWORK_SUBNET="172.29.7.0/24")
        assert status == 6
        assert f"state folder: 0.0 MiB free in {full}" in said
        assert [path.name for path in full.iterdir()] == ["filler"]


class TestCard:
    """A card that is asked for and is not there."""

    def test_up_says_so_before_anything_starts(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """`--gpu on` without a driver: the check's name, what is missing, and the way without."""
        monkeypatch.setattr(machine, "read", lambda *words: HEALTHY)
        with pytest.raises(
            NotReady, match=r"gpu: no NVIDIA card answers nvidia-smi \(install the driver, or: --gpu off\)"
        ):
            up.machine_fits(Project(gpu=True, state=tmp_path), CONTEXT)


class TestOwnFile:
    """A person's override file."""

    @pytest.mark.containers
    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("services:\n  agent: [", "yaml: line"),
            ("services:\n  agent:\n    imagee: x\n", "imagee"),
            ("services:\n  other: {}\n", "other"),
            ('services:\n  agent:\n    environment: {A: "${NOT_SET:?give it a value}"}\n', "give it a value"),
        ],
        ids=["no YAML", "a misspelt key", "a service of nothing", "a variable that is missing"],
    )
    def test_what_does_not_fit_is_named_before_images_are_built(self, text: str, said: str, tmp_path: Path) -> None:
        """One line with the file, what compose says of it, and the way out; status 2."""
        (tmp_path / "override.yaml").write_text(text)
        with pytest.raises(UsageError) as caught:
            up.own_file(Project("prod", state=tmp_path), CONTEXT)
        assert f"does not fit, {tmp_path}/override.yaml: " in str(caught.value)
        assert said in str(caught.value)
        assert "\n" not in str(caught.value)

    @pytest.mark.containers
    def test_what_fits_is_taken(self, tmp_path: Path) -> None:
        """A changed limit is no mistake."""
        (tmp_path / "override.yaml").write_text("services: {agent: {environment: {AGENT_LOOP_MAX_STEPS: '3'}}}\n")
        stack = Project("prod", state=tmp_path)
        assert up.own_file(stack, CONTEXT) == stack


class TestDatabase:
    """A run store in PostgreSQL whose address is wrong."""

    @pytest.mark.containers
    def test_a_wrong_password_is_said_and_mended_by_up(self, tmp_path: Path) -> None:
        """One line with address, reason and variable, never the password; the next `up` takes the right one.

        Given anew while it runs, an address is taken into a new container too.
        """
        with stack(tmp_path, "al-test-password", "172.29.8.0/24") as made:
            bridge = made.docker("network", "inspect", "bridge", "--format", "{{(index .IPAM.Config 0).Gateway}}")
            with postgres.running(bridge, "right") as url:

                def up(address: str) -> tuple[int, str]:
                    return call("up", "--offline", **made.environment, AGENT_LOOP_DATABASE_URL=address)

                status, said = up(url.replace("right", "mistyped"))
                assert status == 5
                line = said.strip().splitlines()[-1]
                assert line.startswith("agent-loop: Not every container became healthy: agent (")
                assert 'password authentication failed for user "agent". Check AGENT_LOOP_DATABASE_URL' in line
                assert "mistyped" not in said
                assert up(url)[0] == 0
                with made.client("AGENT_LOOP_PORT") as client:
                    assert client.get("/ready").status_code == 200
                before = made.containers()
                assert up(url)[0] == 0
                assert made.containers() == before
                assert up(f"{url}?ssl=prefer")[0] == 0
                assert made.containers()["agent"] != before["agent"]
                assert made.containers()["prometheus"] == before["prometheus"]
