"""Alloy and Loki as compose starts them, on images laid out as theirs are: what they must read and write, they can.

No registry answers where these tests run, so the programs are missing: a shell in their place tries their files.
"""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from ci.stack.project import COMPOSE, container_logs
from tests.stack.test_compose import MODES, OURS

pytestmark = pytest.mark.containers

PROJECT = "al-test-logs"

LAYOUTS = {
    "alloy": {"var/lib/alloy": (473, 0o770), "var/lib/alloy/data": (473, 0o770)},
    "loki": {"loki": (10001, 0o755), "loki/rules": (10001, 0o755)},
}
"""Folder to owner and mode, from the Dockerfiles of grafana/alloy and grafana/loki."""

TRIED = {
    "alloy": """
        for word; do case $word in --storage.path=*) store=${word#*=};; *.alloy) config=$word;; esac; done
        test -s $config
        mkdir -p $store/loki.source.file.containers
        echo positions: {} >$store/loki.source.file.containers/positions.yml
        for file in /var/lib/docker/containers/*/*-json.log; do
            head -c 1 $file >/tmp/read && echo $file || test ! -e $file  # another container's may go at any time
        done
    """,
    "loki": """
        for word; do case $word in -config.file=*) test -s ${word#*=};; esac; done
        mkdir -p /loki/chunks /loki/rules /loki/compactor /loki/wal
        echo chunk >/loki/chunks/1
        echo written
    """,
}
"""What each program does with its files before it is ready, as far as a shell can; its own words are the arguments."""


def layers(service: str) -> bytes:
    """The files of an image: a static busybox under the names that are called, and the layout."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        archive.add("/bin/busybox", "bin/busybox")
        for applet in ("sh", "mkdir", "head", "test"):
            link = tarfile.TarInfo(f"bin/{applet}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            archive.addfile(link)
        for path, (owner, mode) in LAYOUTS[service].items():
            folder = tarfile.TarInfo(path)
            folder.type, folder.uid, folder.gid, folder.mode = tarfile.DIRTYPE, owner, owner, mode
            archive.addfile(folder)
    return out.getvalue()


@pytest.fixture
def compose(tmp_path: Path) -> Iterator[list[str]]:
    """The command line of compose for production with logs, both services on stand-in images and on no network."""
    services: dict[str, object] = {}
    for name, tried in TRIED.items():
        image = f"agent-loop-test/{name}:layout"
        subprocess.run(["docker", "import", "-", image], input=layers(name), capture_output=True, check=True)
        services[name] = {"image": image, "entrypoint": ["/bin/sh", "-euc", tried.replace("$", "$$"), name]}
    override = tmp_path / "override.yaml"
    override.write_text(yaml.safe_dump({"services": services}))
    files = [*(COMPOSE / name for name in MODES["prod logs"]), override]
    words = ["docker", "compose", *(word for path in files for word in ("--file", str(path))), "--profile", "logs"]
    yield words
    subprocess.run([*words, "down", "--volumes", "--rmi", "local"], env=environment(), capture_output=True, check=False)
    images = [f"agent-loop-test/{name}:layout" for name in TRIED]
    subprocess.run(["docker", "image", "rm", *images], capture_output=True, check=False)


def environment(containers: str = "") -> dict[str, str]:
    """What compose interpolates here; the engine's own folder of log files where none is given."""
    own = {"AGENT_LOOP_PROJECT": PROJECT, "AGENT_LOOP_STATE": "/nowhere", "AGENT_NETWORK_SUBNET": "172.29.6.0/24"}
    return {**os.environ, **OURS, **own, "AGENT_LOOP_CONTAINER_LOGS": containers or container_logs()}


@pytest.mark.parametrize("service", TRIED)
def test_its_user_may_do_what_the_program_does(service: str, compose: list[str]) -> None:
    """With its user, without a capability, on a read-only root: it reads its files and writes to its fresh volume."""
    words = [*compose, "run", "--rm", "--no-deps", "--no-TTY", service]
    done = subprocess.run(words, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "-json.log" in done.stdout if service == "alloy" else "written" in done.stdout


def test_a_folder_that_is_not_there_is_named(compose: list[str], tmp_path: Path) -> None:
    """Not made empty, in which case nothing would be collected and nobody told."""
    words = [*compose, "run", "--rm", "--no-deps", "--no-TTY", "alloy"]
    done = subprocess.run(words, env=environment(f"{tmp_path}/none"), capture_output=True, text=True)
    assert done.returncode != 0
    assert f"{tmp_path}/none" in done.stderr
    assert not (tmp_path / "none").exists()
