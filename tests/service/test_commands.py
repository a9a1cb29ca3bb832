"""The command line: `serve` in a process of its own, `chat`, `runs` and `keys` against a running service."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import Result
from typer.testing import CliRunner

from service.backends.scripted import ScriptedBackend
from service.backends.scripts import Call, Rule, Script, Turn
from service.cli import app
from tests.fakes.programs import free_port
from tests.fakes.server import Serving, serving
from tests.fakes.waiting import eventually

pytestmark = [pytest.mark.anyio, pytest.mark.in_image, pytest.mark.long]

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = Script(
    (
        Rule("sum", (Turn(calls=(Call("calculator", {"expression": "6*7"}),)), Turn(text="It is ${tool}."))),
        Rule("broken", (Turn(text="one two", fail="failed", fail_after=1),)),
        Rule("again", (Turn(text="You said ${user}"),)),
        Rule("", (Turn(thinking="Hm.", text="Hello [bold]there[/bold]."),)),
    )
)


@pytest.fixture
async def service(tmp_path: Path) -> AsyncGenerator[Serving]:
    async with serving(tmp_path, ScriptedBackend(SCRIPT)) as server:
        yield server


async def command(server: Serving, *words: str, input: str | None = None, **environment: str) -> Result:
    """Run a command of a person at their terminal, against the service."""
    runner = CliRunner(env={"AGENT_LOOP_URL": server.url, **environment})
    return await asyncio.to_thread(lambda: runner.invoke(app, list(words), input=input))


class TestChat:
    async def test_one_question(self, service: Serving) -> None:
        """The answer, the tool with its result, and what it took."""
        done = await command(service, "chat", "the", "sum?")
        assert done.exit_code == 0, done.output
        for part in ("calculator", '{"expression": "6*7"}', "= 42", "It is 42.", "2 steps"):
            assert part in done.output

    async def test_a_conversation_is_one_session(self, service: Serving) -> None:
        """Lines are turns until the input ends; what the model says is text, not markup."""
        done = await command(service, "chat", input="hi\n\nagain\n")
        assert done.exit_code == 0, done.output
        assert "Hello [bold]there[/bold]." in done.output
        assert "You said again" in done.output
        runs = (await service.client.get("/v1/runs")).json()["data"]
        assert len(runs) == 2
        assert len({run["session_id"] for run in runs}) == 1

    async def test_a_failure_is_told(self, service: Serving) -> None:
        """A run that failed says how, after what it had said."""
        done = await command(service, "chat", "broken")
        assert "one" in done.output
        assert "model_error" in done.output

    async def test_what_stands_in_the_way(self, service: Serving, tmp_path: Path) -> None:
        """No service, no such agent, an unreadable key: one line on standard error, exit status 1."""
        for words, environment, said in (
            (("chat", "--url", "http://127.0.0.1:9", "hi"), {}, "Start it with 'agent-loop serve'"),
            (("chat", "--agent", "nope", "hi"), {}, "No such agent: nope"),
            (("chat", "hi"), {"AGENT_LOOP_API_KEY_FILE": str(tmp_path / "none")}, "Name a readable file"),
        ):
            done = await command(service, *words, **environment)
            assert done.exit_code == 1, words
            assert said in done.stderr
            assert "Traceback" not in done.output


class TestRuns:
    async def test_list_show_cancel(self, service: Serving) -> None:
        """The newest first, one as JSON, and cancelling an ended one changes nothing."""
        await command(service, "chat", "the sum?")
        await command(service, "chat", "hi")
        listed = (await command(service, "runs", "list")).output.splitlines()
        assert [re.search(r"'(.*)'", line)[1] for line in listed] == ["Hello [bold]there[/bold].", "It is 42."]  # type: ignore[index]
        run_id = listed[1].split()[0]
        shown = json.loads((await command(service, "runs", "show", run_id)).output)
        assert (shown["id"], shown["outcome"], shown["tool_calls"]) == (run_id, "completed", 1)
        assert (await command(service, "runs", "cancel", run_id)).output == "completed\n"
        missing = await command(service, "runs", "show", "run_none")
        assert (missing.exit_code, "No such run" in missing.stderr) == (1, True)


class TestKeys:
    async def test_a_key_lives_and_dies(self, tmp_path: Path) -> None:
        """It is printed once, works with its scopes and limits, is listed without its secret, and can be revoked."""
        async with serving(tmp_path, ScriptedBackend(SCRIPT), api_key="al-first-key-0123456789") as server:
            store = {"AGENT_LOOP_DATA_DIR": str(tmp_path)}
            words = ("keys", "create", "for tests", "--scope", "runs", "--rpm", "100")
            made = await command(server, *words, **store)
            assert made.exit_code == 0, made.output
            key = made.stdout.split()[-1]
            done = await command(server, "chat", "the sum?", AGENT_LOOP_API_KEY=key)
            assert "It is 42." in done.output
            refused = await server.client.get("/v1/runs", headers={"Authorization": "Bearer nope"})
            assert refused.status_code == 401
            listed = (await command(server, "keys", "list", **store)).output
            assert "for tests" in listed
            assert key not in listed
            key_id = listed.split()[0]
            assert (await command(server, "keys", "revoke", key_id, **store)).output == f"Revoked {key_id}.\n"
            again = await command(server, "keys", "revoke", key_id, **store)
            assert (again.exit_code, key_id in again.stderr) == (1, True)

    async def test_a_scope_that_is_none(self, service: Serving) -> None:
        """Exit status 2, and the scopes that there are."""
        done = await command(service, "keys", "create", "x", "--scope", "root")
        assert (done.exit_code, "chat, runs, admin" in done.stderr) == (2, True)


class Process:
    """`python -m service serve` with these settings."""

    def __init__(self, folder: Path, **settings: str) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        environment = {key: value for key, value in os.environ.items() if not key.startswith("AGENT_LOOP_")}
        environment |= {
            "AGENT_LOOP_BACKEND": "scripted",
            "AGENT_LOOP_MODEL": "scripted",
            "AGENT_LOOP_DATA_DIR": str(folder),
            "AGENT_LOOP_PORT": str(self.port),
            **settings,
        }
        self.process = subprocess.Popen(
            [sys.executable, "-m", "service", "serve"],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    async def ready(self) -> None:
        async with httpx.AsyncClient(base_url=self.url) as client, asyncio.timeout(120):
            while True:
                assert self.process.poll() is None, self.process.communicate()
                try:
                    if (await client.get("/ready")).status_code == 200:
                        return
                except httpx.TransportError:
                    await asyncio.sleep(0.1)

    async def end(self, *, by_itself: bool = False) -> tuple[int, str]:
        """Exit status and log, after SIGTERM unless it ends `by_itself`."""
        if not by_itself:
            self.process.send_signal(signal.SIGTERM)
        _, log = await asyncio.to_thread(self.process.communicate, None, 120)
        return self.process.returncode, log


class TestServe:
    async def test_it_serves_and_ends_well(self, tmp_path: Path) -> None:
        """API and page on one port, JSON lines as log without what people said, exit status 0 after SIGTERM."""
        process = Process(tmp_path)
        await process.ready()
        async with httpx.AsyncClient(base_url=process.url) as client:
            run = (await client.post("/v1/runs", json={"input": "My secret is out"})).json()
            assert run["outcome"] == "completed"
            assert (await client.get("/")).headers["content-type"].startswith("text/html")
        status, log = await process.end()
        assert status == 0, log
        lines = [json.loads(line) for line in log.splitlines()]
        assert run["id"] in [line.get("run_id") for line in lines if line["event"] == "run.ended"]
        assert "My secret" not in log

    async def test_it_refuses_to_start_open_to_others(self, tmp_path: Path) -> None:
        """Listening beyond this machine without a key is refused in one sentence, exit status 2."""
        process = Process(tmp_path, AGENT_LOOP_HOST="0.0.0.0")
        status, log = await process.end(by_itself=True)
        assert status == 2, log
        assert "agent-loop keys create" in log
        assert "Traceback" not in log

    async def test_sigterm_with_a_hundred_streams(self, tmp_path: Path) -> None:
        """SIGTERM under 100 live streams: each ends with a word about it, no finished step of any is lost, and the
        process ends by itself with status 0."""
        script = {
            "rules": [
                {
                    "when": "",
                    "turns": [
                        {"text": "First.", "calls": [{"name": "clock"}]},
                        {"text": "Second. " + "word " * 400, "pace": 0.25},
                    ],
                }
            ]
        }
        (tmp_path / "script.json").write_text(json.dumps(script))
        process = Process(
            tmp_path,
            AGENT_LOOP_SCRIPT=str(tmp_path / "script.json"),
            AGENT_LOOP_PARALLELISM="100",
            AGENT_LOOP_DRAIN_SECONDS="1",
        )
        await process.ready()
        begun: set[int] = set()
        texts: list[str] = []

        async def stream(client: httpx.AsyncClient, number: int) -> None:
            body = {"input": "go", "stream": True, "background": number % 2 == 0}
            seen = ""
            async with client.stream("POST", "/v1/runs", json=body) as answer:
                async for piece in answer.aiter_text():
                    seen += piece
                    if "Second" in seen:
                        begun.add(number)
            texts.append(seen)

        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(base_url=process.url, timeout=120, limits=limits) as client:
            streams = [asyncio.create_task(stream(client, number)) for number in range(100)]
            await eventually(lambda: len(begun) == 100, "all of them stream", 120)
            status, log = await process.end()
            await asyncio.gather(*streams)
        assert status == 0, log
        assert len(texts) == 100
        ended = [text for text in texts if '"outcome":"interrupted"' in text]
        assert len(ended) == 50, "attached runs end as interrupted"
        assert all("stream.error" in text for text in texts if text not in ended)
        async with serving(tmp_path, ScriptedBackend(Script.of(Turn(text="unused", delay=600)))) as again:
            runs: list[dict[str, Any]] = (await again.client.get("/v1/runs?limit=100")).json()["data"]
            assert len(runs) == 100
            for run in runs:
                log_of = await again.parts.store.runs.events(run["id"])
                kinds = [event.type for event in log_of]
                assert kinds.count("step.completed") == kinds.count("tool.completed") == 1, kinds
                assert [event.seq for event in log_of] == list(range(1, len(log_of) + 1))
