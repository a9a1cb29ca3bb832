"""Folders laid over what is there, where a Dockerfile's COPY refuses. Needs Docker and the base `python`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from ci.engine import Options, Session
from ci.engine.build.failures import in_the_way
from ci.engine.errors import BuildFailed
from tests.ci.engine.asking import asked, data


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    """A session that knows of no conflict yet, on the base images that were made here."""
    made = Session(workdir=tmp_path, options=Options(bases="local"))
    yield made
    made.close()


@pytest.mark.parametrize(
    ("reason", "path"),
    [
        ("mkdir /var/lib/docker/x/buildkit12/t/a b: not a directory", "/t/a b"),
        ("lstat /tmp/buildkit-mount12/t/x/y: not a directory", "/t/x/y"),
        ("cannot copy to non-directory: /x/cachemounts/buildkit1/t/p", "/t/p"),
        ("cannot replace to directory /x/buildkit1/t/q with file", "/t/q"),
        ("failed to compute cache key: /a: not found", None),
    ],
)
def test_what_is_in_the_way_is_read_from_the_failure(reason: str, path: str | None) -> None:
    """Each of BuildKit's four wordings names the path in the container."""
    assert in_the_way(BuildFailed(reason)) == path


@pytest.mark.containers
def test_an_image_has_the_folder_too(session: Session, tmp_path: Path) -> None:
    """The first thing asked of such a container may be its image."""
    made = 'withExec(args:["sh","-c","mkdir /t; echo old >/t/x"])'
    folder = data(session, '{directory{withNewFile(path:"f",contents:"new"){id}}}')
    over = f'withDirectory(path:"/t/x",source:{json.dumps(folder)})'
    asked(session, made, over, f'export(path:"{tmp_path}/image.tar")')
    image = data(session, f'{{host{{file(path:"{tmp_path}/image.tar"){{id}}}}}}')
    found = data(
        session, 'query($f:ID!){container{import(source:$f){directory(path:"/t"){glob(pattern:"**")}}}}', f=image
    )
    assert found == ["x/", "x/f"]


@pytest.mark.containers
def test_folders_on_the_way_keep_what_they_are(session: Session) -> None:
    """Only what is in the way goes: the folders above keep modes and owners, and so does all beside it."""
    made = 'withUser(name:"0") withExec(args:["sh","-c","mkdir -m 1777 /t; chown 7:8 /t; echo >/t/x; echo >/t/y"])'
    first, second = made.split(" ", 1)
    folder = data(session, '{directory{withNewFile(path:"f",contents:"new"){id}}}')
    over = f'withDirectory(path:"/t/x",source:{json.dumps(folder)},owner:"5:6")'
    look = 'withExec(args:["sh","-c","cd /t; stat -c \'%n %a %u:%g\' . x x/f y"])'
    found = asked(session, first, second, over, look, "stdout")
    assert found == ". 1777 7:8\nx 755 5:6\nx/f 644 5:6\ny 644 0:0\n"
