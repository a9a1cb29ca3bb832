"""Logs to search: what the collector picks out of a line is what our programs write, and Grafana knows the way back."""

from __future__ import annotations

import io
import json
import logging
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from service.telemetry import logs

FOLDER = Path(__file__).parents[2] / "observability" / "logs"
PIPELINE = (FOLDER / "config.alloy").read_text()
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


def test_what_is_picked_out_is_written(line: dict[str, object]) -> None:
    """Level and run id stand in the service's lines under the names that the collector reads."""
    picked = re.search(r"expressions\s+= \{(level = .*)\}", PIPELINE)
    assert picked
    names = [part.split(" =")[0] for part in picked[1].split(", ")]
    assert names == ["level", "run_id"]
    assert {name: line.get(name) for name in names} == {"level": "info", "run_id": "run_1"}


def test_no_label_grows_with_traffic() -> None:
    """A stream is a service, a level and an environment; the run id is no label."""
    added = set(re.findall(r"(\w+) += (?:\"\"|sys\.env)", "".join(re.findall(r"labels \{(.*?)\n  \}", PIPELINE, re.S))))
    dropped = re.search(r"label_drop \{\s+values = (\[.*\])", PIPELINE)
    assert dropped
    assert added - set(json.loads(dropped[1])) == {"service", "level", "env"}
    settings = yaml.safe_load((FOLDER / "loki.yml").read_text())["limits_config"]
    assert settings["discover_service_name"] == []
    assert settings["allow_structured_metadata"] is True


def test_a_line_leads_to_its_run() -> None:
    """Grafana's data source turns the structured metadata `run_id` into the run's address."""
    (source,) = yaml.safe_load((FOLDER / "datasource.yml").read_text())["datasources"]
    (field,) = source["jsonData"]["derivedFields"]
    assert (field["matcherType"], field["matcherRegex"]) == ("label", "run_id")
    assert 'structured_metadata {\n    values = {run_id = ""}' in PIPELINE
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
