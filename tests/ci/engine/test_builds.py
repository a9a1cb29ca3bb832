"""What only a build can show: decisions 8 and 9, secrets, failures, digests. Needs Docker and the base `python`."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from ci.engine import Options, Plan, Session
from ci.engine.build.dockerfile import render
from tests.ci.engine.asking import FROM, data

pytestmark = pytest.mark.containers

PLAIN = "pl4in-text-of-a-secret"


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    """One session on the base images that were made here."""
    made = Session(workdir=tmp_path_factory.mktemp("work"), options=Options(bases="local"))
    yield made
    made.close()


def files_of(archive: bytes) -> dict[str, bytes]:
    """Every file of an image archive's layers."""
    found: dict[str, bytes] = {}
    with tarfile.open(fileobj=io.BytesIO(archive)) as outer:
        manifest = json.load(outer.extractfile("manifest.json"))[0]  # type: ignore[arg-type]
        for layer in manifest["Layers"]:
            with tarfile.open(fileobj=io.BytesIO(outer.extractfile(layer).read())) as inner:  # type: ignore[union-attr]
                for member in inner:
                    content = inner.extractfile(member) if member.isfile() else None
                    found[member.name] = content.read() if content else b""
    return found


def test_one_run_serves_state_and_output_and_leaves_nothing(session: Session, tmp_path: Path) -> None:
    """Decision 8: a step runs once for its files, its output and its code; the image holds nothing of ours."""
    word = uuid4().hex
    step = f'withExec(args:["sh","-c","cat /proc/sys/kernel/random/uuid | tee /id # {word}"])'
    found = data(session, f'{{container{{{FROM}{{{step}{{stdout exitCode file(path:"/id"){{contents}}}}}}}}}}')
    assert found["stdout"] == found["file"]["contents"]
    assert found["exitCode"] == 0
    image = tmp_path / "image.tar"
    data(session, f'{{container{{{FROM}{{{step}{{export(path:"{image}")}}}}}}}}')
    files = files_of(image.read_bytes())
    assert files["id"].decode() == found["stdout"]
    assert not [name for name in files if ".al" in Path(name).parts]
    again = Session(options=Options(bases="local"))
    try:
        warm = data(again, f"{{container{{{FROM}{{{step}{{stdout}}}}}}}}")
    finally:
        again.close()
    assert warm == found["stdout"]


def test_output_survives_a_failure_and_three_megabytes(session: Session) -> None:
    """Output of a failing step comes whole, beyond what BuildKit's log keeps."""
    query = (
        f'{{container{{{FROM}{{withExec(args:["python3","-c","print(\'x\' * 3000000); raise SystemExit(9)"],'
        " expect: ANY){exitCode stdout}}}}"
    )
    found = data(session, query)
    assert found["exitCode"] == 9
    assert found["stdout"] == "x" * 3_000_000 + "\n"


def test_an_image_without_a_shell_runs_steps(session: Session) -> None:
    """A container that holds nothing but one static program runs it, and its output comes back."""
    busybox = Path("/bin/busybox")
    file = data(session, f'{{host{{file(path:"{busybox}"){{id}}}}}}')
    query = (
        f'{{container{{withFile(path:"/busybox", source:"{file}"){{withExec(args:["/busybox", "echo", "alone"])'
        "{stdout exitCode}}}}"
    )
    assert data(session, query) == {"stdout": "alone\n", "exitCode": 0}


def test_a_pruned_result_makes_the_step_run_again(session: Session) -> None:
    """Where the layer was kept but the results are gone, the step runs again instead of answering nothing."""
    step = session.get(_container(session, ["sh", "-c", f"echo result # {uuid4().hex}"])).step
    builder = session.builder
    assert builder.answer([_outcome(step)])[0].stdout == "result\n"
    builder.results.clear()
    builder._again[step.key] = 1  # the next build looks into a cache mount that nobody has filled
    assert builder.answer([_outcome(step)])[0].stdout == "result\n"


def _container(session: Session, args: list[str]) -> Any:
    query = f"query($a:[String!]!){{container{{{FROM}{{withExec(args:$a){{id}}}}}}}}"
    node = session.find(data(session, query, a=args))
    assert node is not None
    return node


def _outcome(step: Any) -> Any:
    from ci.engine.needs import Outcome

    return Outcome(step)


def test_a_secret_is_nowhere_but_in_its_step(tmp_path: Path) -> None:
    """The plaintext is in no layer, plan, Dockerfile, log, error or file of the session."""
    lines: list[str] = []
    session = Session(options=Options(bases="local", progress=lines.append))
    secret = data(session, f'{{setSecret(name:"tok", plaintext:"{PLAIN}"){{id}}}}')
    shell = f'echo $TOK; cat /run/s; echo $TOK >&2; test -n \\"$TOK\\" && exit 3 # {uuid4().hex}'
    chain = (
        f'container{{{FROM}{{withSecretVariable(name:"TOK", secret:"{secret}"){{'
        f'withMountedSecret(path:"/run/s", source:"{secret}"){{'
        f'withExec(args:["sh","-c","{shell}"], expect: %s){{%s}}}}}}}}}}'
    )
    told = json.dumps(session.answer("{" + chain % ("SUCCESS", "stdout") + "}"))
    assert "***" in told
    kept = json.dumps(session.answer("{" + chain % ("ANY", "stdout stderr combinedOutput") + "}"))
    image = tmp_path / "image.tar"
    data(session, "{" + chain % ("ANY", f'export(path:"{image}")') + "}")
    node = session.find(data(session, "{" + chain % ("ANY", "id") + "}"))
    assert node is not None
    plain = render(session.get(node), session)
    everywhere = [told, kept, "\n".join(lines), plain.text, str(plain.command()), repr(node.chain())]
    everywhere += [f.read_bytes().decode(errors="replace") for f in session.scratch.rglob("*") if f.is_file()]
    everywhere += [content.decode(errors="replace") for content in files_of(image.read_bytes()).values()]
    session.close()
    assert not [text[:200] for text in everywhere if PLAIN in text]
    plan = Plan()
    planned = Session(plan=plan)
    data(planned, f'{{setSecret(name:"tok", plaintext:"{PLAIN}"){{name}}}}')
    assert PLAIN not in repr(plan)


def test_no_daemon_says_what_to_do(tmp_path: Path) -> None:
    """Without a Docker daemon the error is one line that names the way out."""
    env = {**os.environ, "DOCKER_HOST": f"unix://{tmp_path}/none.sock", "DOCKER_CONTEXT": ""}
    session = Session(env=env, options=Options(bases="local"))
    answer = session.answer(f'{{container{{{FROM}{{withExec(args:["true"]){{sync}}}}}}}}')[1]
    session.close()
    message = answer["errors"][0]["message"]
    assert "No Docker daemon answers" in message
    assert "agent-loop setup" in message
    assert "\n" not in message


def test_an_unknown_builder_is_named(tmp_path: Path) -> None:
    """A builder that does not exist is named, with where to look."""
    session = Session(options=Options(bases="local", builder="al-engine-no-such-builder"))
    answer = session.answer(f'{{container{{{FROM}{{withExec(args:["true"]){{sync}}}}}}}}')[1]
    session.close()
    assert "al-engine-no-such-builder" in answer["errors"][0]["message"]
    assert "AGENT_LOOP_BUILDER" in answer["errors"][0]["message"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_the_build(number: signal.Signals, tmp_path: Path) -> None:
    """Ctrl-C, and the end that a supervisor asks for: of the program, the session, its builder and the running step.

    Ctrl-C reaches the terminal's whole group; the others only the program, which passes them on.
    """
    word = f"al-engine-{uuid4().hex}"
    code = (
        "import json, os, urllib.request, base64\n"
        "token, port = os.environ['DAGGER_SESSION_TOKEN'], os.environ['DAGGER_SESSION_PORT']\n"
        f"query = '''{{container{{{FROM}{{withExec(args:[\"sh\",\"-c\",\"sleep 300 # {word}\"]){{sync}}}}}}}}'''\n"
        "request = urllib.request.Request(f'http://127.0.0.1:{port}/query', json.dumps({'query': query}).encode())\n"
        "request.add_header('Authorization', 'Basic ' + base64.b64encode(f'{token}:'.encode()).decode())\n"
        "urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request)\n"
    )
    env = {**os.environ, "TMPDIR": str(tmp_path), "AGENT_LOOP_BASES": "local"}
    words = [sys.executable, "-m", "ci.cli", "run", "--", sys.executable, "-c", code]
    process = subprocess.Popen(words, env=env, start_new_session=True, stderr=subprocess.DEVNULL)
    assert _eventually(lambda: _running(word), 120), "the step never started"
    if number == signal.SIGINT:
        os.killpg(process.pid, number)
    else:
        process.send_signal(number)
    # a Python program dies of Ctrl-C, or of the error that the build which it stopped gave it
    assert process.wait(60) in ((1, 130) if number == signal.SIGINT else (128 + number,))
    assert _eventually(lambda: not _running(word), 60), "the step is still running"
    assert not _named(str(tmp_path)), "a process that works in the session's folder is still running"
    assert list(tmp_path.iterdir()) == []


def _running(word: str) -> bool:
    """Whether a step's shell with this word runs; the word is in our own program's arguments too."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if words[:2] == [b"sh", b"-c"] and any(word.encode() in w for w in words):
            return True
    return False


def _named(word: str) -> list[bytes]:
    """Command lines of processes that have a word in them."""
    found: list[bytes] = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            found.append(path.read_bytes())
    return [line for line in found if word.encode() in line]


def _eventually(true: Any, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if true():
            return True
        time.sleep(0.2)
    return False


def test_a_local_cache_starts_a_build_warm(tmp_path: Path) -> None:
    """What --cache-to wrote is found by --cache-from: the second build takes the step from there."""
    folder = tmp_path / "cache"
    word = uuid4().hex
    query = f'{{container{{{FROM}{{withExec(args:["sh","-c","echo {word} > /w"]){{file(path:"/w"){{contents}}}}}}}}}}'
    lines: list[str] = []
    for options in (
        Options(bases="local", cache_to=(f"type=local,dest={folder},mode=max",)),
        Options(bases="local", cache_from=(f"type=local,src={folder}",), progress=lines.append),
    ):
        session = Session(options=options)
        assert data(session, query) == f"{word}\n"
        session.close()
    assert (folder / "index.json").exists()
    assert any("importing cache manifest" in line for line in lines)


def test_the_ejected_dockerfile_gives_the_same_files(session: Session, tmp_path: Path) -> None:
    """`docker buildx build` of the written folder makes the files that the engine makes, file by file."""
    (session.workdir / "src").mkdir(exist_ok=True)
    (session.workdir / "src" / "a.py").write_text("print('a')\n")
    (session.workdir / "src" / "a.log").write_text("left out")
    source = data(session, '{host{directory(path:"src", exclude:["*.log"]){id}}}')
    chain = (
        f'container{{{FROM}{{withWorkdir(path:"/app"){{'
        f'withDirectory(path:"/app/src", source:"{source}", owner:"1000"){{'
        'withEnvVariable(name:"A", value:"$x y"){'
        'withExec(args:["sh","-c","printf %s \\"$A\\" > made; ln -s made ln"]){'
        'withNewFile(path:"/app/etc/n.conf", contents:"n", permissions:384){'
        'withoutFile(path:"/app/src/none"){directory(path:"/app"){id}}}}}}}}}'
    )
    tree = session.get(session.find(data(session, "{" + chain + "}")))  # type: ignore[arg-type]
    ours = session.builder.pull(session.builder.resolver.files(_below(tree)))
    plain = render(tree, session)
    plain.write(tmp_path / "out")
    layout = session.images.resolve("python:3.13-slim", session.builder.platform).context
    words = [*plain.command(str(tmp_path / "out")), "--build-context", f"python:3.13-slim={layout}"]
    archive = tmp_path / "plain.tar"
    words += ["--provenance=false", "--output", f"type=tar,dest={archive}"]
    subprocess.run([session.builder.buildkit._docker(), *words[1:]], check=True, capture_output=True)
    from ci.engine.files.archive import entries

    with tarfile.open(archive) as opened:
        theirs = dict(entries(opened))
    ours_files = {p: (e.kind, e.mode, e.uid, e.gid, e.target, e.blob.read()) for p, e in ours.walk()}
    their_files = {p: (e.kind, e.mode, e.uid, e.gid, e.target, e.blob.read()) for p, e in theirs.items() if p}
    assert their_files == ours_files
    assert "src/a.py" in ours_files
    assert "src/a.log" not in ours_files


def _below(directory: Any) -> Any:
    from ci.engine.reading import within

    return within(directory.fs, directory.path)
