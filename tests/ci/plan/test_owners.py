"""Owners in an ejected Dockerfile: by name, with a group, by number. Needs Docker and the base `python`."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from ci.engine import Options, Session
from ci.engine.build.dockerfile import render
from ci.engine.schema import cache_folder
from tests.ci.engine.asking import FROM, data

pytestmark = pytest.mark.containers

CACHE = Path(os.environ.get("AGENT_LOOP_CACHE") or cache_folder())
LAYOUT = CACHE / "bases" / "python" / {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), "amd64")
OWNERS = ["games", "games:users", "5", "5:60", "7:users"]
"""The user games has number 5 and is in the group of number 60."""


@pytest.fixture
def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Session]:
    """On the bases that were made here."""
    monkeypatch.setenv("AGENT_LOOP_CACHE", str(CACHE))
    made = Session(workdir=tmp_path, options=Options(bases="local"))
    yield made
    made.close()


def test_a_plain_build_gives_every_file_the_engines_owner(session: Session, tmp_path: Path) -> None:
    """New files, copied files and copied folders, with their parents and on top of what is there."""
    source = data(session, '{directory{withNewFile(path:"in/f",contents:"x"){withNewFile(path:"g",contents:"y"){id}}}}')
    lone = data(session, '{file(name:"lone",contents:"z"){id}}')
    steps = [FROM, 'withUser(name:"nobody")', 'withNewFile(path:"/o/there/old",contents:"x")']
    for number, owner in enumerate(OWNERS):
        steps += [
            f'withNewFile(path:"/o/{number}/new",contents:"x",owner:"{owner}")',
            f'withFile(path:"/o/{number}/deep/er/",source:"{lone}",permissions:416,owner:"{owner}")',
            f'withDirectory(path:"/o/{number}/tree",source:"{source}",owner:"{owner}")',
        ]
    steps.append(f'withDirectory(path:"/o/there",source:"{source}",owner:"nobody")')
    steps += [
        'withNewFile(path:"/tmp/new",contents:"x",owner:"games")',
        'withNewFile(path:"/new",contents:"",owner:"man")',
    ]
    script = json.dumps(["sh", "-c", "cd / && stat -c '%n %u:%g %a' $(find o) new tmp tmp/new"])
    listed = data(
        session, "{container{" + "{".join([*steps, f"withExec(args:{script})", "stdout"]) + "}" * (len(steps) + 3)
    )
    node = session.find(data(session, "{container{" + "{".join([*steps, "id"]) + "}" * (len(steps) + 2)))
    assert node is not None
    rendered = render(session.get(node), session)
    rendered.write(tmp_path / "ejected")
    base = f"oci-layout://{LAYOUT}@{json.loads((LAYOUT / 'index.json').read_text())['manifests'][0]['digest']}"
    command = rendered.command(str(tmp_path / "ejected"))
    words = ["--build-context", f"python:3.13-slim={base}", "--output", f"type=tar,dest={tmp_path / 'plain.tar'}"]
    built = subprocess.run([*command, *words], capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    with tarfile.open(tmp_path / "plain.tar") as archive:
        found = {
            m.name.strip("/"): f"{m.uid}:{m.gid} {m.mode:o}"
            for m in archive
            if re.match("(o|new|tmp|tmp/new)(/|$)", m.name)
        }
    expected = dict(line.split(" ", 1) for line in listed.splitlines())

    assert (expected.pop("o/there"), found.pop("o/there")) == (
        "0:0 755",
        "65534:65534 755",
    )  # as Dagger: docs/engine.md
    assert expected["o/0/new"] == "5:5 644"
    assert {k: (v, found.get(k)) for k, v in expected.items() if found.get(k) != v} == {}
    assert found.keys() == expected.keys()
