"""Recorded cases of a real Dagger 0.21.8 engine, and how an answer is compared with what was recorded.

`answers.jsonl` has one case a line: `name`, `group`, `tier` (1: what an image pipeline leans on, 2: corners),
`embedded` (false: only Dagger's own engine does it), `host` (files to make in a scratch folder), `setup` (a shell
command there), `env` and `cwd` of the session, `steps` and one of `answers` for each; `loose` names what is not
compared. A step is a GraphQL query (with `variables`, `save`: names for parts of its answer, `session: new`),
a `look` at what lies somewhere on the host, or a `shell` command. `<work>` stands for the scratch folder, `<run>`
for a word that is new in every run, a string `$name` for something saved.

`derived.jsonl` has cases of the same form that nobody recorded: their answers follow from the engine's source or
documentation of 0.21, which `note` names, or from what the step itself must give.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import urllib.error
import urllib.request
import uuid
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
BUILDS = re.compile(r"from\(address|withExec|dockerBuild|asTarball|import\(|export\(path:\"<work>/img")

# What differs from run to run, and what stands for it in the recording.
CHANGING = (
    (re.compile(r"\[traceparent:[0-9a-f-]+\]"), "[traceparent:<trace>]"),
    (re.compile(r"/tmp/(?:rootfs|dagger-mount)\d+"), "<engine-tmp>"),
    (re.compile(r"@sha256:[0-9a-f]{64}"), "@sha256:<digest>"),
)


@dataclass(frozen=True)
class Endpoint:
    """Where a session answers."""

    port: int
    token: str

    @classmethod
    def from_environment(cls) -> Endpoint | None:
        """The session that `dagger run` or `agent-loop run` opened around us, if any."""
        port, token = os.environ.get("DAGGER_SESSION_PORT"), os.environ.get("DAGGER_SESSION_TOKEN")
        return cls(int(port), token) if port and token else None

    def ask(self, query: str, variables: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The answer of one query; `http` is its status where that is not 200."""
        body = json.dumps({"query": query, **({"variables": variables} if variables else {})}).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/query", body)
        request.add_header("Content-Type", "application/json")
        request.add_header("Authorization", "Basic " + b64encode(f"{self.token}:".encode()).decode())
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=500) as response:
                return json.load(response)
        except urllib.error.HTTPError as refused:
            with refused:
                return json.load(refused) | {"http": refused.code}


Opener = Callable[[Path, Mapping[str, str]], AbstractContextManager[Endpoint]]
"""Opens a session for a working folder and more environment."""


@dataclass(frozen=True)
class Case:
    """One recorded case."""

    name: str
    group: str
    tier: int
    embedded: bool
    steps: list[dict[str, Any]]
    answers: list[dict[str, Any]]
    host: dict[str, Any] = field(default_factory=dict[str, Any])
    setup: str = ""
    env: dict[str, str] = field(default_factory=dict[str, str])
    cwd: str | None = None
    loose: list[str] = field(default_factory=list[str])
    note: str = ""

    @property
    def builds(self) -> bool:
        """Whether a step of it needs BuildKit."""
        return any(BUILDS.search(step.get("query", "")) for step in self.steps)

    @property
    def own_session(self) -> bool:
        """Whether it says where its session runs, or needs a second one."""
        return bool(self.env) or self.cwd is not None or any(s.get("session") for s in self.steps)


def cases() -> list[Case]:
    """All recorded cases, and the derived ones."""
    lines = [line for name in ("answers.jsonl", "derived.jsonl") for line in (HERE / name).read_text().splitlines()]
    return [Case(**json.loads(line)) for line in lines if line.strip()]


def play(case: Case, work: Path, opened: Endpoint | None, opener: Opener) -> list[str]:
    """Run a case; a line for each step that answers otherwise than the recording."""
    work = work.resolve()
    _make(work, case.host)
    if case.setup:
        subprocess.run(["sh", "-ec", case.setup], cwd=work, check=True, capture_output=True)
    words = {"<work>": str(work), "<run>": uuid.uuid4().hex[:12]}
    saved: dict[str, Any] = {}
    wrong: list[str] = []
    with ExitStack() as sessions:

        def fresh() -> Endpoint:
            env = {k: _fill(v, {}, words) for k, v in case.env.items()}
            return sessions.enter_context(opener(work / (case.cwd or "."), env))

        session = opened or fresh()
        for number, (step, recorded) in enumerate(zip(case.steps, case.answers, strict=True), 1):
            if step.get("session") == "new":
                sessions.close()
                session = fresh()
            answer = _step(step, session, work, saved, words)
            known = [v for v in saved.values() if isinstance(v, str) and len(v) > 7]
            have = _comparable(_steady(answer, words, known), case.loose)
            want = _comparable(recorded, case.loose)
            if have != want:
                wrong.append(
                    f"step {number}: {_short(step)}\n  recorded {json.dumps(want)}\n  answered {json.dumps(have)}"
                )
    return wrong


def _step(
    step: Mapping[str, Any], session: Endpoint, work: Path, saved: dict[str, Any], words: Mapping[str, str]
) -> Any:
    if "look" in step:
        return _look(work / step["look"])
    if "shell" in step:
        done = subprocess.run(["sh", "-c", step["shell"]], cwd=work, capture_output=True, text=True)
        return {"stdout": done.stdout, "exitCode": done.returncode}
    answer = session.ask(_fill(step["query"], saved, words), _fill(step.get("variables"), saved, words))
    for name, path in step.get("save", {}).items():
        part: Any = answer.get("data")
        for key in path.split("."):
            if part is None:
                break
            part = part[int(key)] if isinstance(part, list) else part.get(key)
        saved[name] = part or ""
    return answer


def _short(step: Mapping[str, Any]) -> str:
    return str(step.get("query") or step.get("look") or step.get("shell"))[:300]


def _make(work: Path, files: Mapping[str, Any]) -> None:
    for name, what in files.items():
        path = work / name
        if name.endswith("/"):
            path.mkdir(parents=True, exist_ok=True)
            if what and "mode" in what:
                path.chmod(int(what["mode"], 8))
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        details = {"text": what} if isinstance(what, str) else what
        if "link" in details:
            path.symlink_to(details["link"])
        else:
            path.write_bytes(details["text"].encode("latin-1" if details.get("binary") else "utf-8"))
            path.chmod(int(details.get("mode", "644"), 8))


def _look(path: Path) -> dict[str, Any]:
    if not os.path.lexists(path):
        return {"missing": True}
    if path.is_symlink() or not path.is_dir():
        return {"file": _entry(path)}
    return {"files": {f"{p.relative_to(path)}{'/' if _folder(p) else ''}": _entry(p) for p in path.rglob("*")}}


def _folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _entry(path: Path) -> dict[str, Any]:
    if path.is_symlink():
        return {"link": str(path.readlink())}
    about: dict[str, Any] = {"mode": format(path.stat().st_mode & 0o7777, "04o")}
    if path.is_dir():
        return about
    data = path.read_bytes()
    if len(data) > 4096:
        return about | {"big": True}
    try:
        return about | {"text": data.decode()}
    except UnicodeDecodeError:
        return about | {"binary": True}


def _walk(value: Any, change: Callable[[str, str], Any], key: str = "") -> Any:
    """A value with every string in it changed; `change` is told the key that it stands under."""
    match value:
        case dict():
            return {k: _walk(v, change, k) for k, v in value.items()}
        case list():
            return [_walk(v, change, key) for v in value]
        case str():
            return change(key, value)
        case _:
            return value


def _fill(value: Any, saved: Mapping[str, Any], words: Mapping[str, str]) -> Any:
    def one(_: str, text: str) -> Any:
        if text[:1] == "$" and text[1:] in saved:
            return saved[text[1:]]
        for name, known in saved.items():
            text = text.replace(f'"${name}"', json.dumps(known))
        for word, known in words.items():
            text = text.replace(word, known)
        return text

    return _walk(value, one)


def _steady(answer: Any, words: Mapping[str, str], ids: list[str]) -> Any:
    def one(key: str, text: str) -> str:
        if key in ("id", "sync"):
            return "<id>"
        for known in ids:
            text = text.replace(known, "<id>")
        for pattern, name in CHANGING:
            text = pattern.sub(name, text)
        for word, known in words.items():
            text = text.replace(known, word)
        return text

    return _walk(answer, one)


def _comparable(answer: Mapping[str, Any], loose: list[str]) -> dict[str, Any]:
    made: dict[str, Any] = json.loads(json.dumps(answer))
    if "data" in loose or made.get("data") is None:
        made.pop("data", None)
    for error in made.get("errors") or []:
        for part in ("message", "path"):
            if part in loose:
                error.pop(part, None)
    return _sorted(made) if "order" in loose else made


def _sorted(value: Any) -> Any:
    match value:
        case dict():
            return {k: _sorted(v) for k, v in value.items()}
        case list():
            return sorted((_sorted(v) for v in value), key=lambda v: json.dumps(v, sort_keys=True))
        case _:
            return value


def differing() -> dict[str, str]:
    """Cases that this engine answers otherwise, with the reason; the same list as in docs/engine.md."""
    return dict(_reasons())


def _reasons() -> Iterator[tuple[str, str]]:
    text = (HERE.parents[1] / "docs" / "engine.md").read_text()
    for line in text.splitlines():
        match = re.match(r"\| `([a-z0-9-]+)` \| (?:[12]) \| (.+?) \|$", line)
        if match:
            yield match[1], match[2]
