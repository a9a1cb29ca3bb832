"""Archives with layers in zstd are images like others. Needs Docker and the base `python`."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from ci.engine import Options, Session

from .asking import FROM, data

pytestmark = pytest.mark.containers


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive of an image with settings and a removed file."""
    folder = tmp_path_factory.mktemp("saved")
    session = Session(workdir=folder, options=Options(bases="local"))
    steps = [
        FROM,
        'withNewFile(path:"/kept",contents:"hello")',
        'withoutFile(path:"/etc/debian_version")',
        'withEnvVariable(name:"A",value:"1")',
        'withUser(name:"nobody")',
        'export(path:"image.tar",forcedCompression:Zstd)',
    ]
    data(session, "{container{" + "{".join(steps) + "}" * (len(steps) + 1))
    session.close()
    return folder / "image.tar"


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    """Another session, so that nothing is known from before."""
    made = Session(workdir=tmp_path, options=Options(bases="local"))
    yield made
    made.close()


def in_docker_form(archive: Path, target: Path) -> None:
    """The same archive with `manifest.json` alone, as `docker save` wrote it before it knew OCI."""
    with tarfile.open(archive) as old, tarfile.open(target, "w") as new:
        for member in old:
            if member.name not in ("index.json", "oci-layout"):
                new.addfile(member, old.extractfile(member))


@pytest.mark.parametrize("form", ["oci", "docker"])
def test_its_files_and_settings_are_there(session: Session, saved: Path, tmp_path: Path, form: str) -> None:
    """What was added, what was taken away, what it is set to; and a step runs on it."""
    with tarfile.open(saved) as archive:
        names = archive.getnames()
    assert "manifest.json" in names
    target = tmp_path / "image.tar"
    if form == "docker":
        in_docker_form(saved, target)
    else:
        target.write_bytes(saved.read_bytes())
    source = data(session, '{host{file(path:"image.tar"){id}}}')
    script = json.dumps(["sh", "-c", "id -un; echo $A; cat /kept; ls /etc/debian_version || true"])
    found = data(
        session,
        f'{{container{{import(source:"{source}"){{user envVariable(name:"A") exists(path:"/etc/debian_version") '
        f'file(path:"/kept"){{contents}} withExec(args:{script}){{stdout}}}}}}}}',
    )
    assert found == {
        "user": "nobody",
        "envVariable": "1",
        "exists": False,
        "file": {"contents": "hello"},
        "withExec": {"stdout": "nobody\n1\nhello"},
    }
