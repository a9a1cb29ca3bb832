"""Calls recorded on a real Dagger 0.21.8 (tests/conformance/module-calls.jsonl), made on the same module.

Everything is compared byte for byte on standard output; ids, digests, trace numbers and the program's own part of a
help page are replaced by names in both, as the recording has them. All but one share a session and a process.
"""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from ci.engine.call import cli as call

from .conftest import RECORDED, Opener, copied

pytestmark = pytest.mark.long

CALLS: list[dict[str, Any]] = [json.loads(line) for line in (RECORDED / "module-calls.jsonl").read_text().splitlines()]

BUILDKIT = {
    "arg-cache-volume", "arg-container", "arg-container-bad", "error-failing-container",
    "error-failing-container-without-chain", "error-failing-exec", "object-container", "object-container-chain",
    "object-container-chained-file", "object-container-output", "object-container-stdout",
}  # fmt: skip
"""They run a step or ask for a base image."""

DIFFERENT = {
    "object-container-chain-with-env": "it counts the variables of the official image; a base made here has fewer",
    "arg-directory-is-a-file": "Dagger names a snapshot's folder inside its own engine; ours names the file",
}
"""What ours answers otherwise, and why."""


def cases(needs_buildkit: bool) -> list[Any]:
    return [
        pytest.param(case, id=case["name"])
        for case in CALLS
        if case["embedded"] and case["name"] not in DIFFERENT and (case["name"] in BUILDKIT) == needs_buildkit
    ]


def run(case: dict[str, Any], work: Path, capsys: pytest.CaptureFixture[str], **opener: Any) -> dict[str, Any]:
    argv = [word.replace("<work>", str(work)) for word in case["argv"]]
    status = call.program(argv, **opener)
    out, err = capsys.readouterr()
    out, err = cleaned(out, work), cleaned(err, work).strip("\n")
    if "from" in case:
        out = out[max(out.find(case["from"]), 0) :]
    if case["name"].startswith("raw-") and status == 0:  # the session's JSON, whose spaces and order say nothing
        out = json.dumps(json.loads(out), sort_keys=True, separators=(",", ":"))
    seen: dict[str, Any] = {"exit": status, "stdout": out, "stderr": err}
    if "look" in case:
        seen["files"] = {name: look(work / name) for name in case["look"]}
    return {part: seen[part] for part in ("exit", "stdout", "stderr", "files") if part in case}


def wanted(case: dict[str, Any]) -> dict[str, Any]:
    return {part: case[part] for part in ("exit", "stdout", "stderr", "files") if part in case}


def cleaned(text: str, work: Path) -> str:
    text = text.replace(str(work), "/src")
    text = re.sub(r"\[traceparent:[0-9a-f]+-[0-9a-f]+\]", "[traceparent:<trace>]", text)
    text = re.sub(r"\b[A-Z][A-Za-z]+@[0-9a-f]{40}\b", "<id>", text)
    text = re.sub(r"E[ghi][A-Za-z0-9+/]{14,}={0,2}", "<id>", text)
    text = re.sub(r"(sha256|xxh3):[0-9a-f]{16,64}", r"\1:<digest>", text)
    text = "".join(x for x in text.splitlines(keepends=True) if not re.match(r"\d\d:\d\d:\d\d [A-Z]{3} ", x))
    text = re.sub(r"^OPTIONS\n(?:(?:[ ].*)?\n)*", "<options>\n", text, flags=re.M)
    return re.sub(r'\n*^Use ".* --help" for more information about a command\.\n', "", text, flags=re.M)


def look(path: Path) -> dict[str, Any]:
    if not path.is_dir():
        return {"file": {"mode": f"{path.stat().st_mode & 0o7777:04o}", "text": path.read_text()}}
    found: dict[str, Any] = {}
    for each in sorted(path.rglob("*")):
        mode = f"{each.stat().st_mode & 0o7777:04o}"
        name = str(each.relative_to(path))
        found |= {f"{name}/": {"mode": mode}} if each.is_dir() else {name: {"mode": mode, "text": each.read_text()}}
    return {"files": found}


@pytest.mark.parametrize("case", cases(needs_buildkit=False))
def test_it_answers_as_dagger_does(
    case: dict[str, Any],
    probe: Path,
    open_probe: Opener,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Words, output, errors, exit status and written files are the recorded ones; no BuildKit is asked."""
    work = copied(RECORDED / "module", tmp_path / "probe") if "look" in case else probe
    monkeypatch.chdir(work)
    own_session = "export" in case["argv"]  # its path counts from the session's folder
    assert run(case, work, capsys, **({} if own_session else {"open_module": open_probe})) == wanted(case)


@pytest.mark.filterwarnings(
    "ignore:Exception ignored in.*FileIO:pytest.PytestUnraisableExceptionWarning"
)  # buildx's pipe
@pytest.mark.containers
@pytest.mark.parametrize("case", cases(needs_buildkit=True))
def test_it_builds_and_answers_as_dagger_does(
    case: dict[str, Any],
    probe: Path,
    open_probe: Opener,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The same for calls that run a step: its output, and its exit code as ours."""
    monkeypatch.chdir(probe)
    assert run(case, probe, capsys, open_module=open_probe) == wanted(case)
