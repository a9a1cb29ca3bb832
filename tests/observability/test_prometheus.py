"""Prometheus' configuration, recording rules and alerts."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from observability import names as own
from observability import slo
from service.telemetry import names as service
from tests.fakes import exporters
from tests.fakes.programs import find, run
from tests.fakes.promql import metric_names

pytestmark = pytest.mark.in_image

ROOT = Path(__file__).parents[2]
OBSERVABILITY = ROOT / "observability"
PROMETHEUS = OBSERVABILITY / "prometheus"
RULE_FILES = sorted((PROMETHEUS / "rules").glob("*.yml"))
TEST_FILES = sorted((PROMETHEUS / "tests").glob("*.yml"))
RUNBOOKS = ROOT / "docs" / "runbooks"


def rules(path: Path) -> list[dict[str, Any]]:
    """All rules of a file."""
    return [rule for group in yaml.safe_load(path.read_text())["groups"] for rule in group["rules"]]


ALL_RULES = [rule for path in RULE_FILES for rule in rules(path)]
ALERTS = {rule["alert"]: rule for rule in ALL_RULES if "alert" in rule}
RECORDED = {rule["record"] for rule in ALL_RULES if "record" in rule}
KNOWN = service.series() | {metric.name for metric in own.METRICS} | exporters.THIRD_PARTY | RECORDED


def test_configuration_is_valid() -> None:
    """Prometheus accepts the configuration with its rule and target files."""
    run(find("promtool", "prometheus"), "check", "config", PROMETHEUS / "prometheus.yml")


@pytest.mark.parametrize("path", TEST_FILES, ids=lambda path: path.stem)
def test_rules_behave_as_their_unit_tests_say(path: Path) -> None:
    """promtool's unit tests of the rules pass."""
    run(find("promtool", "prometheus"), "test", "rules", path)


def test_a_unit_test_of_the_rules_can_fail(tmp_path: Path) -> None:
    """With a threshold broken on purpose the same unit tests fail: they do look at the rules."""
    (tmp_path / "rules").mkdir()
    (tmp_path / "tests").mkdir()
    broken = (PROMETHEUS / "rules" / "causes.yml").read_text().replace("max(ollama_up) == 0", "max(ollama_up) == 2")
    (tmp_path / "rules" / "causes.yml").write_text(broken)
    whole = yaml.safe_load((PROMETHEUS / "tests" / "causes.yml").read_text())
    whole["tests"] = [test for test in whole["tests"] if test["name"].startswith("OllamaDown")]
    (tmp_path / "tests" / "causes.yml").write_text(yaml.safe_dump(whole))
    done = run(find("promtool", "prometheus"), "test", "rules", tmp_path / "tests" / "causes.yml", ok=False)
    assert done.returncode != 0
    assert "OllamaDown" in done.stdout + done.stderr


def _cases() -> dict[str, dict[str, int]]:
    """Per alert: how many unit tests expect it to fire, and how many to stay quiet."""
    found: dict[str, dict[str, int]] = {}
    for path in TEST_FILES:
        for test in yaml.safe_load(path.read_text())["tests"]:
            for check in test["promql_expr_test"]:
                match = re.search(r'ALERTS\{alertname="(\w+)",alertstate="firing"\}', check["expr"])
                assert match, check
                kind = "fires" if check["exp_samples"] else "quiet"
                found.setdefault(match[1], {"fires": 0, "quiet": 0})[kind] += 1
    return found


def test_every_alert_is_tested_firing_and_quiet() -> None:
    """Each alert has a unit test in which it fires and one in which it does not."""
    cases = _cases()
    assert set(cases) == set(ALERTS)
    assert {name for name, count in cases.items() if not count["fires"]} == set()
    # The Watchdog always fires: that is its purpose.
    assert {name for name, count in cases.items() if not count["quiet"]} == {"Watchdog"}


@pytest.mark.parametrize("name", sorted(ALERTS))
def test_every_alert_leads_to_a_runbook(name: str) -> None:
    """An alert carries severity, service, summary, description and a link to a page that exists and is filled in."""
    alert = ALERTS[name]
    assert alert["labels"]["severity"] in {"page", "ticket", "none"}
    assert alert["labels"]["service"]
    assert alert["annotations"]["summary"]
    assert alert["annotations"]["description"]
    assert alert["annotations"]["runbook_url"] == f"{slo.RUNBOOKS}{name}.md"
    page = (RUNBOOKS / f"{name}.md").read_text()
    assert page.startswith(f"# {name}\n")
    for heading in ("## What it means", "## Look", "## Do"):
        assert heading in page, heading


def test_every_runbook_belongs_to_an_alert() -> None:
    """No page is left behind when an alert goes."""
    pages = {path.stem for path in RUNBOOKS.glob("*.md")} - {"README"}
    assert pages == set(ALERTS)


@pytest.mark.parametrize("rule", ALL_RULES, ids=lambda rule: rule.get("alert") or rule["record"])
def test_rules_read_known_metrics_only(rule: dict[str, Any]) -> None:
    """Each name in an expression is exported by the service, by this package, or by a listed exporter."""
    used = metric_names(rule["expr"])
    assert used or rule["expr"].startswith("vector(")
    assert used - KNOWN == set()


def test_recorded_names_say_level_metric_and_operation() -> None:
    """Recording rules are named level:metric:operation."""
    assert {name for name in RECORDED if name.count(":") != 2} == set()


def test_slo_rules_are_the_generated_ones() -> None:
    """prometheus/rules/slo.yml is what slo.yml generates."""
    assert slo.RULES_FILE.read_text() == slo.render(slo.load(slo.SLO_FILE))


class TestSloFile:
    """Reading slo.yml."""

    def test_windows_cover_each_burn_rate_and_the_period(self) -> None:
        """A ratio is recorded for every window that an alert or the budget needs."""
        assert slo.windows(slo.load(slo.SLO_FILE)) == ["5m", "30m", "1h", "2h", "6h", "1d", "3d", "28d"]

    def test_limits_are_budget_times_factor(self) -> None:
        """99.5 % at 14.4x alerts above 7.2 % bad."""
        alert = ALERTS["AvailabilityFastBurn"]["expr"]
        assert 'slo:bad:ratio_rate1h{slo="availability"} > 0.072' in alert
        assert 'slo:bad:ratio_rate6h{slo="availability"} > 0.03' in alert

    @pytest.mark.parametrize(
        ("change", "place"),
        [
            ({"objective": 100}, "100"),
            ({"bad": "rate(x[5m])"}, "'bad'"),
            ({"surprise": 1}, "surprise"),
        ],
    )
    def test_a_wrong_file_is_refused_with_its_place(self, change: dict[str, Any], place: str, tmp_path: Path) -> None:
        """One line names what is wrong, and where."""
        data = yaml.safe_load(slo.SLO_FILE.read_text())
        data["slos"][0] |= change
        path = tmp_path / "slo.yml"
        path.write_text(yaml.safe_dump(data))
        with pytest.raises(slo.SloError) as caught:
            slo.load(path)
        assert place in str(caught.value)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)
