"""Logs to search: what the collector picks out of a line is what our programs write, and Grafana knows the way back."""

from __future__ import annotations

import io
import json
import logging
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import TypeGuard

import pytest
import yaml

from service.telemetry import logs
from tests.fakes import alloy

FOLDER = Path(__file__).parents[2] / "observability" / "logs"
CONFIG = alloy.parse((FOLDER / "config.alloy").read_text(), {"AGENT_LOOP_PROJECT": "ours", "AGENT_LOOP_ENV": "prod"})
GRAFANA = FOLDER.parent / "grafana" / "provisioning"
COMPOSE = FOLDER.parents[1] / "ci" / "stack" / "compose"
BOARD = json.loads((FOLDER / "dashboards" / "agent-loop-logs.json").read_text())


@pytest.fixture
def line() -> dict[str, object]:
    """A line that the service writes inside a run."""
    stream = io.StringIO()
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    try:
        logs.configure(form="json", stream=stream)
        with logs.bound(run_id="run_1"):
            logging.getLogger("service").info("said")
    finally:
        root.handlers[:] = before
        root.setLevel(level)
    found: dict[str, object] = json.loads(stream.getvalue().splitlines()[-1])
    return found


def through(text: str, project: str | None = "ours") -> list[alloy.Entry]:
    """What is sent of a container's line as the engine keeps it."""
    of_compose = {"com.docker.compose.project": project, "com.docker.compose.service": "agent"}
    envelope = {"log": text, "stream": "stderr", "time": "2026-11-28T00:00:00.5Z"}
    kept = json.dumps(envelope | ({"attrs": of_compose} if project else {}))
    found = alloy.processed(CONFIG.one("loki.process"), alloy.Entry(kept, {"filename": "/x-json.log"}))
    return [found] if found else []


def arguments(text: str) -> tuple[set[str], set[str]]:
    """The names that a component must have, marked with an exclamation mark, and all that it may have."""
    return {name[:-1] for name in text.split() if name.endswith("!")}, {name.rstrip("!") for name in text.split()}


DOCUMENTED = {
    "local.file_match": "path_targets! ignore_older_than sync_period",
    "loki.source.file": "targets! forward_to! encoding legacy_positions_file on_positions_file_error tail_from_end",
    "loki.process": "forward_to!",
    "stage.json": "expressions! source drop_malformed",
    "stage.labels": "values! source_type",
    "stage.match": "selector! action drop_counter_reason pipeline_name",
    "stage.docker": "",
    "stage.structured_metadata": "values regex",
    "stage.static_labels": "values!",
    "stage.label_drop": "values!",
    "loki.write": "external_labels max_streams",
    "endpoint": "url! batch_size batch_wait max_backoff_period max_backoff_retries name remote_timeout tenant_id",
}
"""Block to its arguments, after Alloy's reference of components; for `endpoint` only those one could want here."""
EXPORTED = {"local.file_match": "targets", "loki.process": "receiver", "loki.write": "receiver"}


def every(block: alloy.Block) -> Iterator[alloy.Block]:
    """A block's inner blocks, and theirs."""
    for inner in block.blocks:
        yield inner
        yield from every(inner)


def test_alloy_documents_every_name_that_its_file_uses() -> None:
    """Each block has the arguments it must have and no other; what they refer to is exported by another component."""
    for block in every(CONFIG):
        must, may = arguments(DOCUMENTED[block.name])
        assert must <= set(block.attributes) <= may, block.name
    exported = {
        f"{block.name}.{block.label}.{EXPORTED[block.name]}" for block in CONFIG.blocks if block.name in EXPORTED
    }
    given = [value for block in CONFIG.blocks for value in (*block.attributes.values(),)]
    used = {one.name for value in given for one in (value if isinstance(value, list) else [value]) if is_reference(one)}
    assert used == exported


def is_reference(value: object) -> TypeGuard[alloy.Reference]:
    """Whether a value is another component's."""
    return isinstance(value, alloy.Reference)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("loki.process containers {}", "line 1"),
        ('a "b" {\n  c = {\n    d = 1\n  }\n}', "line 3: '\\n' where ',' is due"),
        ('a "b" {\n  c = 1 d = 2\n}', "line 2"),
        ('a "b" {\n  c = "1\n}', "line 2: no token"),
        ('a "b" {', "is due"),
    ],
)
def test_the_reading_of_its_syntax_is_strict(text: str, said: str) -> None:
    """What Alloy would refuse is refused here too: a label without quotes, a missing comma, bracket or quote."""
    with pytest.raises(ValueError, match=re.escape(said)):
        alloy.parse(text, {})


def test_what_is_picked_out_is_written(line: dict[str, object]) -> None:
    """A line of the service, in the engine's envelope, becomes one with its labels, its run and the engine's time."""
    text = json.dumps(line) + "\n"
    (entry,) = through(text)
    assert entry.labels == {"service": "agent", "level": "info", "env": "prod"}
    assert (entry.metadata, entry.line, entry.time) == ({"run_id": "run_1"}, text, "2026-11-28T00:00:00.5Z")


@pytest.mark.parametrize("text", ["llama.cpp says\n", '{"level": null}\n', "[1]\n", '{"half of a long line', ""])
def test_a_line_of_another_form_is_kept(text: str) -> None:
    """Programs that do not write our JSON keep their line, and get no level."""
    (entry,) = through(text)
    assert (entry.line, entry.metadata) == (text, {})
    assert entry.labels == {"service": "agent", "env": "prod"}


@pytest.mark.parametrize("project", ["another", None])
def test_lines_of_other_stacks_stay_out(project: str | None) -> None:
    """Neither another compose project's lines are sent nor those of a container of none."""
    assert through("{}", project) == []


def test_no_label_grows_with_traffic(line: dict[str, object]) -> None:
    """A stream is a service, a level and an environment, whatever a line holds; Loki adds none of its own."""
    (entry,) = through(json.dumps({**line, "user": "u", "stream": "s", "service": "mine"}))
    assert set(entry.labels) == {"service", "level", "env"}
    assert entry.labels["service"] == "agent"
    settings = yaml.safe_load((FOLDER / "loki.yml").read_text())["limits_config"]
    assert settings["discover_service_name"] == []
    assert settings["allow_structured_metadata"] is True


def test_a_line_leads_to_its_run() -> None:
    """Grafana's data source turns the structured metadata `run_id` into the run's address."""
    (source,) = yaml.safe_load((FOLDER / "datasource.yml").read_text())["datasources"]
    (field,) = source["jsonData"]["derivedFields"]
    assert (field["matcherType"], field["matcherRegex"]) == ("label", "run_id")
    (stage,) = (block for block in every(CONFIG) if block.name == "stage.structured_metadata")
    assert stage.attributes["values"] == {"run_id": ""}
    assert field["url"].startswith("$AGENT_LOOP_URL/v1/runs/")


def test_a_run_leads_to_its_lines() -> None:
    """The link on a percentile's dot opens the board of log lines with that run, and is empty without Loki."""
    (source,) = yaml.safe_load((GRAFANA / "datasources" / "prometheus.yml").read_text())["datasources"]
    links = [d["url"] for d in source["jsonData"]["exemplarTraceIdDestinations"] if d["name"] == "run_id"]
    assert links == ["$AGENT_LOOP_URL/v1/runs/$${__value.raw}", "$AGENT_LOOP_LOGS_LINK"]

    def given(name: str) -> str:
        services = yaml.safe_load((COMPOSE / name).read_text())["services"]
        return str(services["grafana"]["environment"]["AGENT_LOOP_LOGS_LINK"])

    assert given("compose.yaml") == ""
    address, _, query = given("compose.logs.yaml").replace("$$", "$").partition("?")
    assert address == f"/d/{BOARD['uid']}"
    assert query.split("&") == ["${__url_time_range}", "var-run=${__value.raw}"]
    assert {"service", "run", "words"} == {variable["name"] for variable in BOARD["templating"]["list"]}


def test_the_board_asks_loki_for_labels_that_there_are() -> None:
    """Every panel asks the source that comes with Loki, by the labels that the collector gives, for the words above."""
    targets = [t for panel in BOARD["panels"] if panel["type"] != "row" for t in panel["targets"]]
    assert {t["datasource"]["uid"] for t in targets} == {"loki"}
    for target in targets:
        selector = re.search(r"\{(.*?)\}", target["expr"])
        assert selector
        assert set(re.findall(r"(\w+)=", selector[1])) <= {"service", "level", "env"}
        assert all(f"${name}" in target["expr"] for name in ("service", "run", "words"))
    provider = yaml.safe_load((FOLDER / "dashboards.yml").read_text())["providers"][0]
    mounted = yaml.safe_load((COMPOSE / "compose.logs.yaml").read_text())["services"]["grafana"]["volumes"]
    assert f"../../../observability/logs/dashboards:{provider['options']['path']}:ro" in mounted


@pytest.mark.skipif(shutil.which("loki") is None, reason="no loki here: put the program on PATH to check its file")
def test_loki_takes_its_configuration() -> None:
    """The program itself finds nothing wrong with it."""
    command = ["loki", f"-config.file={FOLDER / 'loki.yml'}", "-verify-config"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(shutil.which("alloy") is None, reason="no alloy here: put the program on PATH to check its file")
def test_alloy_takes_its_configuration() -> None:
    """The program itself finds nothing wrong with it."""
    done = subprocess.run(["alloy", "validate", str(FOLDER / "config.alloy")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
