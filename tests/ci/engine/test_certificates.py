"""How the host's certificates reach steps (decision 9). Needs Docker and the base `python`."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path
from uuid import uuid4

import pytest

from ci.engine import Options, Session
from tests.ci.engine.asking import asked, data

pytestmark = pytest.mark.containers

COUNT = "import ssl; print(len(ssl.create_default_context().get_ca_certs()))"


def step(*words: str) -> str:
    return "withExec(args:[" + ",".join(f'"{word}"' for word in words) + "])"


def opened(bundle: Path | None = None) -> Session:
    env = {**os.environ, **({"AGENT_LOOP_CA_BUNDLE": str(bundle)} if bundle else {})}
    return Session(env=env, options=Options(bases="local"))


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """The host's certificates with a line that no other bundle has."""
    file = tmp_path / "bundle.pem"
    file.write_text(f"{Path('/etc/ssl/certs/ca-certificates.crt').read_text()}# {uuid4().hex}\n")
    return file


def test_they_reach_tools_and_stay_out_of_the_image(tmp_path: Path) -> None:
    """The bundle is a file during a step, named by environment; neither is in the image."""
    count = step("sh", "-c", f"echo $SSL_CERT_FILE; python3 -c '{COUNT}'; update-ca-certificates >/dev/null")
    image = tmp_path / "image.tar"
    session = opened()
    try:
        name, number = asked(session, count, "stdout").split()
        asked(session, count, f'export(path:"{image}")')
    finally:
        session.close()
    assert name == "/.al/ca/ca.pem"
    assert int(number) > 0
    assert b"SSL_CERT_FILE" not in image.read_bytes()
    with tarfile.open(image) as archive:
        layers = [m for m in archive if m.isfile() and m.size > 10_000]
        for layer in layers:
            with tarfile.open(fileobj=archive.extractfile(layer)) as inner:
                assert not [name for name in inner.getnames() if name.endswith("ca.pem") or ".al" in name.split("/")]


def test_others_make_no_step_run_again(bundle: Path) -> None:
    """Certificates take no part in what a step is: with another bundle its first result still stands."""
    once = step("sh", "-c", f"cat /proc/sys/kernel/random/uuid # {uuid4().hex}")
    answers: list[str] = []
    for session in (opened(), opened(bundle)):
        try:
            answers.append(asked(session, once, "stdout"))
        finally:
            session.close()
    assert answers[0] == answers[1]


def test_they_come_back_when_they_were_pruned(bundle: Path) -> None:
    """BuildKit drops cache mounts before layers; a step that finds no certificates there gets them again."""
    count = step("python3", "-c", f"{COUNT} # {uuid4().hex}")
    session = opened(bundle)
    try:
        asked(session, step("true", uuid4().hex), "stdout")
        key = f"agent-loop-ca-{session.builder.tools.bundle}"
        cache = data(session, f'{{cacheVolume(key:"{key}"){{id}}}}')
        pruned = step("sh", "-c", "ls /pruned; rm /pruned/ca.pem")
        assert asked(session, f'withMountedCache(path:"/pruned",cache:"{cache}")', pruned, "stdout") == "ca.pem\n"
        assert int(asked(session, count, "stdout")) > 0
    finally:
        session.close()
