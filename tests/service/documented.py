"""The parts of the service's pages that are made from its code: `python -m tests.service.documented` writes them.

`docs/service.md` gets the table of settings from `service/settings.py`; `docs/faults.md` gets each fault's outcome from
the docstring of the test that proves it. A test compares both with the files.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from service.settings import PREFIX, SecretFiles, Settings

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Fault:
    """A fault and the tests that prove its outcome, each as `file::[Class::]test` below tests/service."""

    id: str
    fault: str
    tests: tuple[str, ...]


FAULTS = (
    Fault(
        "F01",
        "Latency, low bandwidth",
        (
            "runs/test_faults.py::TestTheModelsSide::test_a_slow_model_meets_the_time_limit",
            "api/test_sse.py::test_silence_is_filled_with_pings",
        ),
    ),
    Fault(
        "F02",
        "Bytes split inside characters and JSON",
        ("backends/test_ollama_ends.py::test_bytes_may_be_cut_anywhere",),
    ),
    Fault(
        "F03",
        "The model's server dies or resets",
        (
            "backends/test_resilience.py::test_a_passing_failure_is_not_seen",
            "runs/test_faults.py::TestTheModelsSide::test_a_reply_that_breaks",
            "openai/test_openai_client.py::TestErrors::test_failure_in_mid_stream_is_an_error_event",
        ),
    ),
    Fault(
        "F04",
        "The model's server goes silent",
        (
            "backends/test_ollama_ends.py::test_silence_is_bounded",
            "runs/test_faults.py::TestTheModelsSide::test_a_silent_model_is_a_stall",
        ),
    ),
    Fault(
        "F05",
        "The model's server is down, or its name unknown",
        (
            "runs/test_faults.py::TestTheModelsSide::test_a_model_that_is_down",
            "backends/test_ollama_ends.py::test_nobody_there",
            "backends/test_resilience.py::test_it_opens_rests_and_closes",
            "backends/test_resilience.py::test_the_other_model_answers",
        ),
    ),
    Fault(
        "F06", "The model's server is busy (503)", ("backends/test_resilience.py::test_being_busy_does_not_open_it",)
    ),
    Fault("F07", "Ollama restarts", ("backends/test_resilience.py::test_a_restarted_ollama_is_found_again",)),
    Fault(
        "F08",
        "The model is evicted during a run",
        ("runs/test_faults.py::TestTheModelsSide::test_a_model_evicted_between_steps",),
    ),
    Fault(
        "F09", "Malformed JSON from the model's server", ("backends/test_ollama_ends.py::test_every_end_has_its_error",)
    ),
    Fault(
        "F10, F11",
        "The client leaves, streaming or waiting",
        (
            "runs/test_endings.py::test_leaving_cancels",
            "runs/test_endings.py::test_continue_goes_on",
            "runs/test_endings.py::test_openai_clients_too",
        ),
    ),
    Fault(
        "F12",
        "SIGTERM while streaming",
        (
            "test_commands.py::TestServe::test_sigterm_with_a_hundred_streams",
            "runs/test_processes.py::test_shutdown_hands_over",
        ),
    ),
    Fault(
        "F13",
        "SIGKILL, also in a tool",
        (
            "runs/test_crash.py::test_twenty_kills_at_random_points",
            "runs/test_processes.py::test_take_over_in_mid_tool",
            "runs/test_processes.py::test_a_run_that_does_not_survive_its_client_ends",
        ),
    ),
    Fault(
        "F14",
        "Disk full, or read-only",
        (
            "runs/test_faults.py::TestTheStore::test_a_full_disk",
            "runs/test_faults.py::TestTheStore::test_a_read_only_store",
        ),
    ),
    Fault("F15", "The clock jumps", ("runs/test_faults.py::TestTheClock::test_a_jump_changes_nothing",)),
    Fault("F16", "Readers that do not read", ("api/test_sse.py::test_a_reader_that_never_reads_is_dropped",)),
    Fault("F17", "Huge, deep, malformed or hostile requests", ("api/test_hostile.py::test_none_of_them_gets_through",)),
    Fault(
        "F18",
        "A prompt longer than the context",
        (
            "backends/test_ollama_models.py::test_a_long_prompt_is_an_error_not_a_cut",
            "backends/test_resilience.py::test_truncations_are_counted",
        ),
    ),
    Fault(
        "F19",
        "The same POST twice",
        (
            "runs/test_sessions.py::test_same_key_same_body_is_one_run",
            "runs/test_processes.py::test_idempotency_across_processes",
        ),
    ),
    Fault("F20", "More load than the queue holds", ("api/test_admission.py::test_overload_is_bounded_and_recovers",)),
    Fault(
        "F21",
        "The connection is cut on the way",
        ("runs/test_modes.py::test_background_stream_goes_on_without_its_reader",),
    ),
    Fault(
        "F22",
        "The process is stopped for long (a laptop sleeps)",
        ("runs/test_processes.py::test_a_process_that_lost_its_lease_writes_nothing",),
    ),
)


def claim(node_id: str) -> str:
    """What a test's docstring says. Raises LookupError if there is no such test."""
    path, *_, name = node_id.split("::")
    tree = ast.parse((ROOT / "tests" / "service" / path).read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == name:
            return " ".join((ast.get_docstring(node) or "").split())
    raise LookupError(f"no such test: {node_id}")


def fault_table() -> str:
    """The fault matrix in Markdown."""
    rows = ["| | fault | what happens | proved by |", "| --- | --- | --- | --- |"]
    for each in FAULTS:
        for number, test in enumerate(each.tests):
            head = f"| {each.id} | {each.fault} " if number == 0 else "| | "
            place = test.replace("::", " ").replace(".py", "").rsplit(" ", 1)
            rows.append(f"{head}| {claim(test)} | `{place[0].split(' ')[0]}` {place[1]} |")
    return "\n".join(rows)


def settings_table() -> str:
    """The settings in Markdown, in the order and groups of the code."""
    source = (ROOT / "service" / "settings.py").read_text()
    body = next(n.body for n in ast.parse(source).body if isinstance(n, ast.ClassDef) and n.name == "Settings")
    lines = source.splitlines()
    rows: list[str] = []
    for node, after in pairwise(body):
        if not isinstance(node, ast.AnnAssign) or not isinstance(node.target, ast.Name):
            continue
        name = node.target.id
        group = re.fullmatch(r" {4}# (\w.*)", lines[node.lineno - 2])
        if group:
            rows += ["", f"**{group[1]}**", "", "| variable | default | |", "| --- | --- | --- |"]
        told = after.value.value if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) else ""
        secret = f" Or a file: `{PREFIX}{name.upper()}_FILE`." if name in SecretFiles.FIELDS else ""
        rows.append(f"| `{PREFIX}{name.upper()}` | {_default(name)} | {' '.join(str(told).split())}{secret} |")
    return "\n".join(rows[1:])


def _default(name: str) -> str:
    field = Settings.model_fields[name]
    if field.default_factory is not None:
        return {"data_dir": "`~/.local/state/agent-loop`", "ollama_url": "`http://127.0.0.1:11434`"}.get(name, "`{}`")
    value = field.default
    if value is None or value in ((), ""):
        return ""
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


PARTS = {"docs/service.md": ("settings", settings_table), "docs/faults.md": ("faults", fault_table)}


def rendered(path: str) -> str:
    """The page with its generated part as it should be. Raises LookupError where its marks are missing."""
    mark, make = PARTS[path]
    begin, end = f"<!-- {mark}: python -m tests.service.documented -->\n", f"<!-- end of {mark} -->"
    text = (ROOT / path).read_text()
    if text.count(begin) != 1 or text.count(end) != 1:
        raise LookupError(f"{path} lacks its marks: {begin.strip()} … {end}")
    head, rest = text.split(begin)
    return f"{head}{begin}{make()}\n{end}{rest.split(end)[1]}"


if __name__ == "__main__":
    for page in PARTS:
        (ROOT / page).write_text(rendered(page))
