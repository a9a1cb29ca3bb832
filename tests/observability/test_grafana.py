"""Dashboards as code: what is committed is what is generated, and every panel shows data on a real Prometheus."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from observability import names as own
from observability.grafana import build as builder
from observability.grafana.boards import BOARDS
from service.telemetry import names as service
from tests.fakes import exporters
from tests.fakes.programs import Programs, find, free_port
from tests.fakes.promql import metric_names

OBSERVABILITY = Path(__file__).parents[2] / "observability"
GRAFANA = OBSERVABILITY / "grafana"
PROMETHEUS = OBSERVABILITY / "prometheus"
FILES = sorted(builder.DASHBOARDS.glob("*.json"))
LAID_OUT = [*FILES, *sorted(builder.LOGS.glob("*.json"))]


def panels(path: Path) -> list[dict[str, Any]]:
    """The panels of a committed dashboard, without its rows."""
    return [panel for panel in json.loads(path.read_text())["panels"] if panel["type"] != "row"]


EXPRESSIONS = [
    pytest.param(target["expr"], id=f"{path.stem.removeprefix('agent-loop-')}: {panel['title']} {target['refId']}")
    for path in FILES
    for panel in panels(path)
    for target in panel["targets"]
]


@pytest.mark.in_image
def test_committed_dashboards_are_the_generated_ones() -> None:
    """dashboards/*.json is byte for byte what the boards build."""
    assert builder.stale() == []


@pytest.mark.in_image
def test_a_changed_dashboard_is_called_stale(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that differ, are missing or are left over are each named."""
    monkeypatch.setattr(builder, "DASHBOARDS", tmp_path)
    monkeypatch.setattr(builder, "LOGS", tmp_path / "logs")
    assert builder.main([]) == 0
    (tmp_path / "agent-loop-llm.json").write_text("{}")
    (tmp_path / "agent-loop-gpu.json").unlink()
    (tmp_path / "old.json").write_text("{}")
    (tmp_path / "logs" / "agent-loop-logs.json").write_text("")
    assert builder.stale() == [
        "agent-loop-gpu.json is missing",
        "agent-loop-llm.json differs from its board",
        "agent-loop-logs.json differs from its board",
        "old.json is left over",
    ]


@pytest.mark.in_image
@pytest.mark.parametrize("path", LAID_OUT, ids=lambda path: path.stem)
def test_panels_do_not_overlap_and_have_reference_ids(path: Path) -> None:
    """Each panel has its own place within 24 columns, an id of its own, and targets with distinct reference ids."""
    taken: set[tuple[int, int]] = set()
    everything = json.loads(path.read_text())["panels"]
    assert len({panel["id"] for panel in everything}) == len(everything)
    for panel in everything:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert max(x for x, _ in cells) < 24
        assert not cells & taken, panel["title"]
        taken |= cells
    for panel in panels(path):
        refs = [target["refId"] for target in panel["targets"]]
        assert refs
        assert len(set(refs)) == len(refs)
        assert all(refs)


@pytest.mark.in_image
def test_eight_boards_with_their_own_addresses() -> None:
    """The eight dashboards of the design exist, each with a uid that a bookmark can keep."""
    assert len({board.uid for board in BOARDS}) == 8
    assert {path.stem for path in FILES} == {board.uid for board in BOARDS}


@pytest.mark.in_image
def test_panels_read_known_metrics_only() -> None:
    """No panel asks for a metric that nothing exports or records."""
    recorded = {
        rule["record"]
        for path in (PROMETHEUS / "rules").glob("*.yml")
        for group in yaml.safe_load(path.read_text())["groups"]
        for rule in group["rules"]
        if "record" in rule
    }
    known = service.series() | {metric.name for metric in own.METRICS} | exporters.THIRD_PARTY | recorded
    for parameter in EXPRESSIONS:
        used = metric_names(str(parameter.values[0]))
        assert used, parameter.id
        assert used - known == set(), parameter.id


@pytest.mark.in_image
def test_every_own_metric_of_the_service_is_on_a_dashboard_or_in_a_rule() -> None:
    """What the service counts can be seen somewhere: a new metric without a panel fails here."""
    texts = [path.read_text() for path in FILES] + [p.read_text() for p in (PROMETHEUS / "rules").glob("*.yml")]
    unseen = {metric.name for metric in service.METRICS if not any(metric.name in text for text in texts)}
    assert unseen == set()


@pytest.mark.in_image
def test_provisioning_points_at_the_dashboards() -> None:
    """The provider and the data source say what the dashboards assume: uid `prometheus`, a folder of JSON files."""
    source = yaml.safe_load((GRAFANA / "provisioning" / "datasources" / "prometheus.yml").read_text())
    assert [entry["uid"] for entry in source["datasources"]] == ["prometheus"]
    provider = yaml.safe_load((GRAFANA / "provisioning" / "dashboards" / "agent-loop.yml").read_text())
    assert provider["providers"][0]["options"]["path"] == "/etc/grafana/dashboards"
    used = {panel["datasource"]["uid"] for path in FILES for panel in panels(path)}
    assert used == {"prometheus"}


@pytest.fixture(scope="module")
def prometheus(programs: Programs, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real Prometheus with the real rules, evaluated twice a second, fed by the fake exporters for a while."""
    folder = tmp_path_factory.mktemp("prometheus")
    (folder / "rules").mkdir()
    for path in (PROMETHEUS / "rules").glob("*.yml"):
        quick = re.sub(r"interval: \w+", "interval: 500ms", path.read_text())
        (folder / "rules" / path.name).write_text(quick)
    port = free_port()
    with exporters.Exporters() as fake:
        jobs: list[dict[str, Any]] = [
            {"job_name": job, "metrics_path": f"/{job}", "static_configs": [{"targets": [fake.address]}]}
            for job in exporters.JOBS
        ]
        config = {
            "global": {"scrape_interval": "500ms", "scrape_timeout": "500ms", "evaluation_interval": "500ms"},
            "rule_files": ["rules/*.yml"],
            "scrape_configs": jobs,
        }
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        url = f"http://127.0.0.1:{port}"
        programs.start(
            [
                find("prometheus", "prometheus"),
                f"--config.file={folder}/prometheus.yml",
                f"--storage.tsdb.path={folder}/data",
                f"--web.listen-address=127.0.0.1:{port}",
                "--log.level=warn",
            ],
            f"{url}/-/ready",
        )
        # Both canary and stable have been scraped a few times, and what is recorded from recordings has followed.
        _wait(url, "min(count_over_time(up[1m])) > 6 and on() count(slo:error_budget:remaining_ratio) == 3")
        yield url


def _query(url: str, expression: str) -> list[dict[str, Any]]:
    reply = httpx.get(f"{url}/api/v1/query", params={"query": expression}, timeout=30)
    body = reply.json()
    assert body["status"] == "success", f"{expression}: {body.get('error')}"
    return body["data"]["result"]


def _wait(url: str, expression: str) -> None:
    deadline = time.monotonic() + 90
    while not _query(url, expression):
        assert time.monotonic() < deadline, f"Never came true: {expression}"
        time.sleep(0.5)


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_every_panel_shows_data(prometheus: str, expression: str) -> None:
    """The panel's query returns series on a real Prometheus, and at least one of them holds a number."""
    text = expression.replace("$__rate_interval", "30s").replace("$job", "agent|agent-canary")
    result = _query(prometheus, text)
    assert result, text
    assert any(series["value"][1] != "NaN" for series in result), text


def test_an_empty_panel_is_noticed(prometheus: str) -> None:
    """The check above can fail: a metric that nobody exports returns nothing."""
    assert _query(prometheus, "agent_loop_no_such_thing_total") == []


def test_variables_offer_values(prometheus: str) -> None:
    """The job variable's label query finds both deployments."""
    reply = httpx.get(f"{prometheus}/api/v1/label/job/values", params={"match[]": 'up{job=~"agent|agent-canary"}'})
    assert reply.json()["data"] == ["agent", "agent-canary"]
