"""The servers that are measured, each a process on a core of its own: the service, a raw relay, LiteLLM's proxy.

`upstream` is the model server that they all speak to; it shares the other core with the clients.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import Request, urlopen

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).parent
LITELLM = Path.home() / ".cache" / "agent-loop" / "bench" / "litellm"
LITELLM_VERSION = "1.91.1"
SERVER_CORE, CLIENT_CORE = ("1", "0") if (os.cpu_count() or 1) > 1 else ("0", "0")
TICK = os.sysconf("SC_CLK_TCK")


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def get(url: str, key: str = "none") -> Any:
    """A JSON answer, {} if it has none."""
    with urlopen(Request(url, headers={"Authorization": f"Bearer {key}"}), timeout=10) as answer:
        body = answer.read()
    try:
        return json.loads(body)
    except ValueError:
        return {}


class Server:
    """A process on a core of its own: its address, processor time and memory."""

    def __init__(self, command: list[str], port: int, core: str, ready: str, **environment: str) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.log = Path(tempfile.mkstemp(prefix="bench-", suffix=".log")[1])
        with self.log.open("wb") as out:
            self.process = subprocess.Popen(
                ["taskset", "-c", core, *command],
                cwd=ROOT,
                env={**os.environ, **environment},
                stdout=out,
                stderr=subprocess.STDOUT,
            )
        deadline = time.monotonic() + 180
        while True:
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"It does not start: {' '.join(command)}:\n{self.log.read_text()[-3000:]}")
            try:
                get(self.url + ready)
                return
            except (URLError, OSError):
                time.sleep(0.2)

    def seconds(self) -> float:
        """Processor time so far, of all its threads."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICK

    def memory(self) -> int:
        """Bytes of memory that are its own now."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) * 1024

    def end(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@contextmanager
def running(kind: str, upstream: str = "", **more: str) -> Generator[Server]:
    """`upstream`, `service`, `relay` (bytes through the same framework and client) or `litellm`."""
    port = free_port()
    python = [sys.executable]
    uvicorn = ["-m", "uvicorn", "--port", str(port), "--no-access-log", "--log-level", "warning", "--factory"]
    folder = tempfile.TemporaryDirectory(prefix="bench-")
    match kind:
        case "upstream":
            server = Server([*python, str(HERE / "upstream.py"), str(port)], port, CLIENT_CORE, "/stats")
        case "relay":
            command = [*python, *uvicorn, "benchmarks.service.relay:create"]
            server = Server(command, port, SERVER_CORE, "/health", UPSTREAM=upstream, **more)
        case "service":
            settings = {
                "AGENT_LOOP_BACKEND": "openai",
                "AGENT_LOOP_OPENAI_URL": f"{upstream}/v1",
                "AGENT_LOOP_MODEL": "c20-p0",
                "AGENT_LOOP_DATA_DIR": folder.name,
                "AGENT_LOOP_LOG_LEVEL": "WARNING",
                "AGENT_LOOP_PARALLELISM": "64",
                "AGENT_LOOP_MAX_QUEUE": "4096",
                "AGENT_LOOP_QUEUE_TIMEOUT": "600",
                "AGENT_LOOP_PORT": str(port),
                **more,
            }
            server = Server([*python, "-m", "service", "serve"], port, SERVER_CORE, "/health", **settings)
        case _:
            server = _litellm(port, upstream, Path(folder.name))
    try:
        yield server
    finally:
        server.end()
        folder.cleanup()


def _litellm(port: int, upstream: str, folder: Path) -> Server:
    config = {
        "model_list": [
            {
                "model_name": name,
                "litellm_params": {"model": f"openai/{name}", "api_base": f"{upstream}/v1", "api_key": "none"},
            }
            for name in ("c20-p0", "c200-p10")
        ],
        "general_settings": {"master_key": "sk-bench"},
    }
    (folder / "config.yaml").write_text(json.dumps(config))  # JSON is YAML
    command = [str(LITELLM / "bin" / "litellm"), "--config", str(folder / "config.yaml"), "--port", str(port)]
    more = {"LITELLM_LOG": "ERROR", "LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_TELEMETRY": "False"}
    return Server([*command, "--num_workers", "1"], port, SERVER_CORE, "/health/liveliness", **more)


def install_litellm() -> bool:
    """LiteLLM's proxy in an environment of its own, made once; False where it cannot be had."""
    if (LITELLM / "bin" / "litellm").exists():
        return True
    uv = str(Path(sys.executable).with_name("uv"))
    try:
        subprocess.run([uv, "venv", "--quiet", "--python", "3.11", str(LITELLM)], check=True)
        python = str(LITELLM / "bin" / "python")
        wanted = f"litellm[proxy]=={LITELLM_VERSION}"
        subprocess.run([uv, "pip", "install", "--quiet", "--python", python, wanted], check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        print(json.dumps({"part": "proxy", "litellm": f"not installed: {error}"}), flush=True)
        return False
    return True
