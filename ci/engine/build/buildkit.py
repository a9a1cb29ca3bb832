"""Runs BuildKit through `docker buildx`: the one place that starts that program.

Nothing is kept between builds but what BuildKit keeps itself. What a build prints is read line by line,
scrubbed, and turned into progress and errors.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from ci.engine.errors import BuildFailed, SetupError
from ci.engine.secrets import scrub

from .logins import Logins

DOCKERS = ("/usr/bin/docker", "/usr/local/bin/docker")
PLUGINS = (
    "/usr/libexec/docker/cli-plugins/docker-buildx",
    "/usr/lib/docker/cli-plugins/docker-buildx",
    "/usr/local/lib/docker/cli-plugins/docker-buildx",
    "/usr/local/libexec/docker/cli-plugins/docker-buildx",
)
INSTALL = "Install Docker with buildx ('agent-loop setup' does), or start its daemon."
HOSTNAME = "BUILDKIT_SANDBOX_HOSTNAME=dagger"
"""The name that a step's machine has on a Dagger engine."""

FAILED = re.compile(r"did not complete successfully: exit code: (\d+)")
STEP = re.compile(r"steps/([0-9a-f]{16})")
NOISE = re.compile(r"^ERROR: (?:failed to (?:solve|build): )?")


@dataclass(frozen=True)
class Job:
    """One build: a Dockerfile and everything that it needs."""

    dockerfile: str
    target: str
    folder: Path
    """The main build context."""
    contexts: Mapping[str, str] = field(default_factory=dict[str, str])
    secrets: Mapping[str, bytes] = field(default_factory=dict[str, bytes])
    secret_files: Mapping[str, Path] = field(default_factory=dict[str, Path])
    args: Mapping[str, str] = field(default_factory=dict[str, str])
    output: str = "type=cacheonly"
    platform: str = ""
    options: tuple[str, ...] = ()
    """More words for `buildx build` (caches, attestations)."""
    raw: bool = False
    """Tell a failing step's two output streams apart (which costs the readable progress)."""


@dataclass(frozen=True)
class Inspected:
    """An image in a registry: the digest of its manifest list, and its configuration for one platform."""

    digest: str
    config: Mapping[str, Any]


class BuildKit:
    """The builder of a session."""

    def __init__(
        self,
        env: Mapping[str, str],
        builder: str | None = None,
        progress: Callable[[str], None] | None = None,
        logins: Logins | None = None,
    ) -> None:
        self.env = env
        self.logins = logins
        self.builder = builder
        self.progress = progress
        self._running: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.Lock()
        self._closed = False
        self._number = 0

    def run(self, job: Job) -> dict[str, Any]:
        """Build; the metadata that buildx writes. Raises BuildFailed, SetupError."""
        with self._lock:
            self._number += 1
            number = self._number
        file = job.folder.parent / f"Dockerfile.{number}"
        file.write_text(job.dockerfile)
        metadata = job.folder.parent / f"metadata.{number}.json"
        words = [*self._program(), "build", "--progress", "rawjson" if job.raw else "plain", "--file", str(file)]
        words += ["--target", job.target] if job.target else []
        words += ["--output", job.output, "--metadata-file", str(metadata), "--build-arg", HOSTNAME]
        if self.builder:
            words += ["--builder", self.builder]
        if job.platform:
            words += ["--platform", job.platform]
        for name, address in job.contexts.items():
            words += ["--build-context", f"{name}={address}"]
        for name, value in job.args.items():
            words += ["--build-arg", f"{name}={value}"]
        env = self._environment()
        env.pop("DOCKER_BUILDKIT", None)
        env["BUILDX_METADATA_PROVENANCE"] = "disabled"
        for index, (name, value) in enumerate(job.secrets.items()):
            if b"\0" in value or not value or len(value) > 100_000:
                path = job.folder.parent / f"secret.{number}.{index}"
                path.touch(mode=0o600)
                path.write_bytes(value)
                words += ["--secret", f"id={name},src={path}"]
            else:
                env[f"AGENT_LOOP_SECRET_{index}"] = os.fsdecode(value)
                words += ["--secret", f"id={name},env=AGENT_LOOP_SECRET_{index}"]
        for name, path in job.secret_files.items():
            words += ["--secret", f"id={name},src={path}"]
        words += [*job.options, str(job.folder)]
        log = self._execute(words, env, list(job.secrets.values()))
        for path in job.folder.parent.glob(f"secret.{number}.*"):
            path.unlink(missing_ok=True)
        if log is not None:
            raise failure(log, *(_streams(log) if job.raw else ()))
        try:
            return json.loads(metadata.read_text())
        except (OSError, ValueError):
            return {}

    def inspect(self, reference: str, platform: str) -> Inspected:
        """Look an image up in its registry without pulling it. Raises BuildFailed, SetupError."""
        words = [*self._program(), "imagetools", "inspect", reference, "--format", "{{json .}}"]
        done = subprocess.run(words, capture_output=True, env=self._environment())
        if done.returncode:
            reason = done.stderr.decode(errors="replace").strip().splitlines() or ["no answer"]
            raise BuildFailed(NOISE.sub("", reason[-1]))
        found = json.loads(done.stdout)
        image = found.get("image") or {}
        config = image.get(platform) or next((v for k, v in image.items() if k.startswith(platform)), image)
        return Inspected(str((found.get("manifest") or {}).get("digest", "")), config.get("config") or {})

    def is_docker(self) -> bool:
        """Whether the builder is the one inside Docker, which keeps and unpacks whatever it pushes."""
        words = [*self._program(), "inspect", *([self.builder] if self.builder else [])]
        done = subprocess.run(words, capture_output=True, text=True, env=dict(self.env))
        return re.search(r"^Driver:\s+docker$", done.stdout, re.MULTILINE) is not None

    def docker(self, *arguments: str, data: bytes | None = None) -> bytes:
        """Run a plain docker command; its output. Raises BuildFailed, SetupError."""
        done = subprocess.run([self._docker(), *arguments], input=data, capture_output=True, env=self._environment())
        if done.returncode:
            raise failure(done.stderr.decode(errors="replace").splitlines())
        return done.stdout

    def load(self, write: Callable[[IO[bytes]], None]) -> None:
        """Let Docker's store take the archive that `write` writes, piece by piece. Raises BuildFailed, SetupError."""
        words = [self._docker(), "load", "--quiet"]
        with subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=dict(self.env)
        ) as process:
            assert process.stdin is not None
            assert process.stderr is not None
            with contextlib.suppress(BrokenPipeError):  # it ended early, and says why
                write(process.stdin)
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()
            said = process.stderr.read().decode(errors="replace").splitlines()
        if process.returncode:
            raise failure(said)

    def imagetools(self, *arguments: str) -> None:
        """Run `buildx imagetools`. Raises BuildFailed, SetupError."""
        words = [*self._program(), "imagetools", *arguments]
        done = subprocess.run(words, capture_output=True, env=self._environment())
        if done.returncode:
            raise failure(done.stderr.decode(errors="replace").splitlines())

    def close(self) -> None:
        """Stop what runs; BuildKit cancels a build whose client goes away."""
        with self._lock:
            self._closed = True
            running = list(self._running)
        for process in running:
            _end(process)

    def _environment(self) -> dict[str, str]:
        """What docker and buildx run with."""
        return {**self.env, **(self.logins.environment() if self.logins else {})}

    def _docker(self) -> str:
        for path in DOCKERS:
            if os.access(path, os.X_OK):
                return path
        found = shutil.which("docker", path=self.env.get("PATH"))
        if found is None:
            raise SetupError(f"No docker program found. {INSTALL}")
        return found

    def _program(self) -> list[str]:
        """buildx itself, without the detour over the docker program (which costs a tenth of a second)."""
        for path in PLUGINS:
            if os.access(path, os.X_OK):
                return [path]
        return [self._docker(), "buildx"]

    def _execute(self, words: Sequence[str], env: Mapping[str, str], hidden: Iterable[bytes]) -> list[str] | None:
        """Run a build; None when it went well, else what it printed."""
        with self._lock:
            if self._closed:
                raise BuildFailed("The session has ended.")
            try:
                process = subprocess.Popen(
                    words,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.PIPE,
                    env=env,
                    start_new_session=True,
                )
            except OSError as error:
                raise SetupError(f"Cannot run {words[0]}: {error.strerror}. {INSTALL}") from None
            self._running.add(process)
        hidden = list(hidden)
        log: list[str] = []
        try:
            assert process.stderr is not None
            with process.stderr as output:
                for raw in output:
                    line = scrub(raw.rstrip(b"\n"), hidden).decode(errors="replace")
                    log.append(line)
                    if len(log) > 20_000:
                        del log[:10_000]
                    if self.progress is not None:
                        self.progress(line)
            code = process.wait()
        except BaseException:
            _end(process)
            raise
        finally:
            with self._lock:
                self._running.discard(process)
        if self._closed:
            raise BuildFailed("The build was stopped.")
        return None if code == 0 else log


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _streams(log: Sequence[str]) -> tuple[str, str]:
    """Standard output and error of the step that failed, from progress in JSON."""
    text, decoder = "\n".join(log), json.JSONDecoder()
    outputs: dict[str, dict[int, str]] = {}
    failing, at = "", 0
    while (start := text.find("{", at)) >= 0:
        try:
            found, at = decoder.raw_decode(text, start)
        except ValueError:
            at = start + 1
            continue
        for vertex in found.get("vertexes") or []:
            failing = vertex["digest"] if vertex.get("error") and not failing else failing
        for entry in found.get("logs") or []:
            streams = outputs.setdefault(entry["vertex"], {1: "", 2: ""})
            streams[entry["stream"]] += base64.b64decode(entry["data"]).decode(errors="replace")
    streams = outputs.get(failing, {1: "", 2: ""})
    return streams[1], streams[2]


def failure(log: Sequence[str], stdout: str = "", stderr: str = "") -> Exception:
    """The error of a build that failed, from what it printed."""
    text = "\n".join(log)
    last = next((line for line in reversed(log) if line.startswith("ERROR:")), log[-1] if log else "no output")
    reason = NOISE.sub("", last)
    if re.search(
        r"[Cc]annot connect to the Docker daemon|failed to (?:connect to|get) .*docker|connection refused", text
    ):
        return SetupError(f"No Docker daemon answers. {INSTALL}")
    if "no builder" in reason and "found" in reason:
        return SetupError(f"{reason}. Name an existing one in AGENT_LOOP_BUILDER ('docker buildx ls' lists them).")
    if "no space left on device" in text:
        return BuildFailed(
            "No space left on the builder's disk. Free some ('docker buildx prune') and run again.", text
        )
    code = FAILED.search(reason)
    block = text[text.rfind("\n------\n > [") :] if "\n------\n > [" in text else text
    step = STEP.search(block.split("------", 2)[1] if block.count("------") > 1 else block)
    return BuildFailed(reason, text, int(code[1]) if code else None, step[1] if step else None, stdout, stderr)
