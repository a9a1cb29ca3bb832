"""Paths of mounts that a Dockerfile reads as more than a path. Needs Docker and the base `python`."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from ci.engine import Options, Session
from ci.engine.build.dockerfile import mount, placed
from ci.engine.errors import FieldError
from tests.ci.engine.asking import asked, data

PATHS = ["a,b", 'q"q', "q'q", "b\\s", "two  words", "$HOME", "${HOME}", "x=y", "[a]*?", "é 日本", "a,\"b' $c\\d,é=*"]


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    """One session on the base images that were made here."""
    made = Session(workdir=tmp_path_factory.mktemp("work"), options=Options(bases="local"))
    yield made
    made.close()


def test_plain_paths_are_written_as_they_are() -> None:
    """The common case stays what a person would write, and needs no variable."""
    option = mount(type="bind", from_="s1", source="/a", target="/b", rw=True)
    assert (option, placed([option])) == ("--mount=type=bind,from=s1,source=/a,target=/b,rw", [])


def test_a_path_of_several_lines_is_refused_by_its_name() -> None:
    """What no form can say is an error that names the path."""
    with pytest.raises(FieldError, match=r"line end in its path, '/a\\nb'"):
        mount(type="tmpfs", target="/a\nb")


@pytest.mark.containers
@pytest.mark.parametrize("name", PATHS)
def test_every_kind_of_mount_takes_any_path(session: Session, name: str) -> None:
    """A folder, a file, a cache, a secret and a temporary folder are found where they were mounted, and only there."""
    at, said = f"/m/{name}", json.dumps
    secret = data(session, '{setSecret(name:"odd",plaintext:"hidden thing"){id}}')
    folder = data(session, 'query($p:String!){directory{withNewFile(path:$p,contents:"in it"){id}}}', p=f"{name}/f")
    file = data(
        session, 'query($p:String!){directory{withNewFile(path:$p,contents:"alone"){file(path:$p){id}}}}', p=name
    )
    cache = data(session, '{cacheVolume(key:"odd-paths"){id}}')
    code = (
        "import os, sys; at = sys.argv[1]; "
        "print(open(at + '/d/' + sys.argv[2] + '/f').read(), open(at + '/f').read(), open(at + '/s').read()); "
        "open(at + '/d/new', 'w').write('kept'); open(at + '/c/x', 'w'); open(at + '/t/x', 'w'); "
        "print(sorted(os.listdir(at)), os.listdir('/m'), [v for v in os.environ if 'AGENT_LOOP' in v])"
    )
    fields = [
        f"withMountedDirectory(path:{said(at + '/d')},source:{said(folder)})",
        f"withMountedFile(path:{said(at + '/f')},source:{said(file)})",
        f"withMountedCache(path:{said(at + '/c')},cache:{said(cache)})",
        f"withMountedSecret(path:{said(at + '/s')},source:{said(secret)})",
        f"withMountedTemp(path:{said(at + '/t')})",
        f"withExec(args:{said(['python3', '-c', code, at, name])})",
    ]
    found = asked(session, *fields, f"stdout file(path:{said(at + '/d/new')}){{contents}}")
    assert found["stdout"] == f"in it alone ***\n['c', 'd', 'f', 's', 't'] {[name]} []\n"
    assert found["file"] == {"contents": "kept"}


@pytest.mark.containers
def test_a_folder_of_a_container_is_mounted_from_any_path(session: Session) -> None:
    """The source of a mount may have such a path too."""
    path = PATHS[-1]
    made = asked(
        session,
        f'withExec(args:["sh","-c","mkdir -p \\"$0\\"; echo here >\\"$0/f\\"",{json.dumps("/" + path)}])',
        f"directory(path:{json.dumps('/' + path)})",
        "id",
    )
    mounted = f'withMountedDirectory(path:"/m",source:{json.dumps(made)})'
    assert asked(session, mounted, 'withExec(args:["cat","/m/f"])', "stdout") == "here\n"
