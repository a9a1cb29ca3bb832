"""The session: its protocol, its plan mode, its ids, and what it refuses. Nothing here builds."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest

from ci.engine import FieldError, Plan, Session, field
from ci.engine.depth import MAX_DEPTH
from ci.engine.graph import ROOT, Hidden, call, dump, revive
from ci.engine.registry import Args, Call

FROM = 'from(address:"python:3.13-slim-trixie@sha256:' + "0" * 64 + '")'


def post(port: int, token: str, body: bytes) -> tuple[int, dict[str, Any]]:
    request = urllib.request.Request(f"http://127.0.0.1:{port}/query", body)
    request.add_header("Authorization", "Basic " + b64encode(f"{token}:".encode()).decode())
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=30) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code, json.load(refused)


def test_only_the_holder_of_the_token_is_answered() -> None:
    """The right token is answered, another gets 401, a body that is no query 400."""
    with Session() as session:
        query = b'{"query": "{version}"}'
        assert post(session.port, session.token, query) == (200, {"data": {"version": "v0.21.8"}})
        assert post(session.port, "other", query)[0] == 401
        assert post(session.port, session.token, b"[]")[0] == 400


def test_a_chain_may_be_as_long_as_a_loop_makes_it() -> None:
    """Hundreds of fields one after the other are answered; beyond what is read at all the query is refused.

    Only an open session has Python follow that deep: the limit guards the whole process.
    """

    def chain(length: int) -> bytes:
        fields = "".join(f'{{withNewFile(path:"f{i}",contents:"{i}")' for i in range(length))
        return json.dumps({"query": "{directory" + fields + "{entries" + "}" * (length + 2)}).encode()

    before = sys.getrecursionlimit()
    with Session() as session:
        status, answer = post(session.port, session.token, chain(900))
        found = answer["data"]["directory"]
        while "entries" not in found:
            found = found["withNewFile"]
        assert (status, len(found["entries"])) == (200, 900)
        status, answer = post(session.port, session.token, chain(MAX_DEPTH + 1))
        assert (status, answer["data"]) == (422, None)
        assert answer["errors"][0]["message"].startswith("Document is nested too deeply")
    assert sys.getrecursionlimit() == before


def test_the_command_lives_until_its_input_closes(tmp_path: Path) -> None:
    """`agent-loop session` prints one JSON line, serves, and leaves nothing behind when it ends."""
    scratch, work = tmp_path / "scratch", tmp_path / "work"
    scratch.mkdir()
    work.mkdir()
    (work / "large").write_bytes(b"x" * 100_000)  # large enough to be copied to the session's folder
    env = {**os.environ, "TMPDIR": str(scratch)}
    words = [sys.executable, "-m", "ci.cli", "session", "--workdir", str(work)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        line = json.loads(process.stdout.readline())
        host = json.dumps({"query": '{host{directory(path:"."){id}}}'}).encode()
        assert post(line["port"], line["session_token"], host)[0] == 200
        process.stdin.close()
        assert process.wait(30) == 0
    assert list(scratch.iterdir()) == []


def test_run_gives_the_program_its_session_and_its_exit_status() -> None:
    """`agent-loop run` hands port and token over, and ends as the program ends; a missing program is 127."""
    code = "import os, sys; sys.exit(7 if {'DAGGER_SESSION_PORT', 'DAGGER_SESSION_TOKEN'} <= set(os.environ) else 1)"
    done = subprocess.run([sys.executable, "-m", "ci.cli", "run", "--", sys.executable, "-c", code])
    assert done.returncode == 7
    missing = subprocess.run([sys.executable, "-m", "ci.cli", "run", "no-such-program"], capture_output=True)
    assert missing.returncode == 127
    assert b"Cannot run no-such-program" in missing.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_run_passes_on_the_signal_that_ends_it(number: signal.Signals, tmp_path: Path) -> None:
    """A program that is told to end does so in its own way, its status counts, and the session's folder goes."""
    scratch, work = tmp_path / "scratch", tmp_path / "work"
    scratch.mkdir()
    work.mkdir()
    (work / "large").write_bytes(b"x" * 100_000)  # large enough to be copied to the session's folder
    code = (
        "import base64, json, os, signal, sys, time, urllib.request\n"
        "signal.signal(int(sys.argv[1]), lambda *_: sys.exit(9)) if sys.argv[2] == 'own' else None\n"
        "token, port = os.environ['DAGGER_SESSION_TOKEN'], os.environ['DAGGER_SESSION_PORT']\n"
        "query = json.dumps({'query': '{host{directory(path:\".\"){id}}}'}).encode()\n"
        "request = urllib.request.Request(f'http://127.0.0.1:{port}/query', query)\n"
        "request.add_header('Authorization', 'Basic ' + base64.b64encode(f'{token}:'.encode()).decode())\n"
        "urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request).read()\n"
        "print(os.getpid(), flush=True)\n"
        "time.sleep(300)\n"
    )
    for way, status in (("own", 9), ("default", 128 + number)):
        words = [sys.executable, "-m", "ci.cli", "run", "--workdir", str(work), "--"]
        with subprocess.Popen(
            [*words, sys.executable, "-c", code, str(int(number)), way],
            stdout=subprocess.PIPE,
            env={**os.environ, "TMPDIR": str(scratch)},
        ) as process:
            assert process.stdout is not None
            child = int(process.stdout.readline())
            assert list(scratch.iterdir()) != []
            process.send_signal(number)
            assert process.wait(60) == status
            assert not Path(f"/proc/{child}").exists()
        assert list(scratch.iterdir()) == []


def test_a_hang_up_is_nothing_under_nohup() -> None:
    """A program that was started to outlive its terminal does."""
    words = ["nohup", sys.executable, "-m", "ci.cli", "session"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        line = json.loads(process.stdout.readline())
        process.send_signal(signal.SIGHUP)
        assert post(line["port"], line["session_token"], b'{"query": "{version}"}')[0] == 200
        process.stdin.close()
        assert process.wait(30) == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_session(number: signal.Signals) -> None:
    """Ctrl-C, a supervisor and a terminal that closes end a session with no error."""
    words = [sys.executable, "-m", "ci.cli", "session"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(number)
        assert process.wait(30) == 0


def test_a_plan_notes_leaves_and_builds_nothing(tmp_path: Path) -> None:
    """In a plan what would build is answered with a placeholder of its type; what is known is answered."""
    plan = Plan()
    session = Session(plan=plan, workdir=tmp_path)
    query = f"""{{container{{{FROM}{{withEnvVariable(name:"A", value:"1"){{envVariable(name:"A")
      withExec(args:["make"]){{stdout exitCode sync export(path:"x.tar") file(path:"/o"){{contents}}}}}}}}}}}}"""
    status, answer = session.answer(query)
    assert status == 200, answer
    inner = answer["data"]["container"]["from"]["withEnvVariable"]
    assert inner["envVariable"] == "1"
    assert inner["withExec"]["stdout"] == ""
    assert inner["withExec"]["exitCode"] == 0
    assert inner["withExec"]["export"] == "x.tar"
    assert [leaf.node.field for leaf in plan.leaves] == ["stdout", "exitCode", "sync", "export", "contents"]
    assert list(tmp_path.iterdir()) == []


def test_what_buildkit_cannot_do_is_refused_by_name() -> None:
    """A field without a function names itself and the way out."""
    session = Session()
    for query, name in [
        ("{container{asService{id}}}", "Container.asService"),
        ('{git(url:"https://example.org/x"){id}}', "Query.git"),
        ('{container{withExec(args:["x"], insecureRootCapabilities:true){id}}}', "insecureRootCapabilities"),
    ]:
        message = session.answer(query)[1]["errors"][0]["message"]
        assert name in message
        assert "dagger call" in message


def test_a_field_is_one_function() -> None:
    """A registered function answers its field; a failure of it becomes the field's error."""

    @field("Query", "cloud", memo=False)
    def cloud(ctx: Call, parent: None, args: Args) -> str:
        return "cloud"

    @field("Cloud", "traceURL")
    def trace(ctx: Call, parent: str, args: Args) -> str:
        raise FieldError(f"no trace in {parent}")

    answer = Session().answer("{cloud{t: traceURL}}")[1]
    assert answer == {"errors": [{"message": "no trace in cloud", "path": ["cloud", "t"]}], "data": None}


def test_ids_are_equal_for_equal_chains_and_hide_secrets() -> None:
    """A node's id comes from what was asked; a plaintext takes no part in it and is never written."""
    one = call(ROOT, "Secret", "setSecret", {"name": "tok", "plaintext": Hidden("first")})
    two = call(ROOT, "Secret", "setSecret", {"name": "tok", "plaintext": Hidden("second")})
    other = call(ROOT, "Secret", "setSecret", {"name": "pw", "plaintext": Hidden("first")})
    assert one.id == two.id != other.id
    assert "first" not in json.dumps(dump(one))
    assert "first" not in repr(dict(one.args))


def test_a_node_survives_writing() -> None:
    """What a later session reads back is the same chain, arguments that are objects included."""
    folder = call(ROOT, "Directory", "directory", {})
    node = call(call(ROOT, "Container", "container", {"platform": None}), "Container", "withDirectory",
                {"path": "/d", "source": folder, "include": ["a"]})  # fmt: skip
    assert revive(json.loads(json.dumps(dump(node)))).key == node.key


def test_a_query_with_a_bad_value_runs_nothing(tmp_path: Path) -> None:
    """All arguments are read before the first field: an export before a bad value does not happen."""
    session = Session(workdir=tmp_path)
    query = '{file(name:"n", contents:"x"){export(path:"x")} container{withExec(args:"ls"){id}}}'
    status, answer = session.answer(query)
    assert status == 200
    assert "expected array" in answer["errors"][0]["message"] or "decode" in answer["errors"][0]["message"]
    assert list(tmp_path.iterdir()) == []


def test_the_session_does_not_import_the_client() -> None:
    """Serving needs no `import dagger`, which alone costs more than a warm call may."""
    code = "from ci.engine import Session; import sys; Session().answer('{version}'); print('dagger' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize(
    "use",
    [
        'withMountedFile(path:"/l",source:"$lock")',
        'withFile(path:"/l",source:"$lock")',
        'withMountedDirectory(path:"/d",source:"$folder")',
        'withDirectory(path:"/d",source:"$folder")',
        'withMountedCache(path:"/c",cache:"$volume",source:"$folder")',
    ],
)
def test_what_a_step_is_does_not_rest_on_what_lies_beside_its_files(use: str, tmp_path: Path) -> None:
    """An edit elsewhere in the folder that its files come from leaves a step the same; one of the files does not."""

    def key() -> str:
        session = Session(workdir=tmp_path)

        def ask(query: str) -> str:
            found: Any = session.answer(query)[1]["data"]
            while isinstance(found, dict):
                found = next(iter(found.values()))
            return found

        source = 'host{directory(path:"."){'
        ids = {
            "$lock": ask(f'{{{source}file(path:"a/lock"){{id}}}}}}}}'),
            "$folder": ask(f'{{{source}directory(path:"a"){{id}}}}}}}}'),
            "$volume": ask('{cacheVolume(key:"k"){id}}'),
        }
        text = use
        for name, ident in ids.items():
            text = text.replace(name, ident)
        node = session.find(ask(f'{{container{{{text}{{withExec(args:["/true"]){{id}}}}}}}}'))
        assert node is not None
        found = session.get(node).step.key
        session.close()
        return found

    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "lock").write_text("one")
    (tmp_path / "b").write_text("one")
    first = key()
    (tmp_path / "b").write_text("two")
    assert key() == first
    (tmp_path / "a" / "lock").write_text("two")
    assert key() != first
