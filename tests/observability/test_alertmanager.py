"""Who hears of an alert: routes, inhibition and delivery, on the real Alertmanager and the real sink."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import yaml

from observability.alertmanager.sink import AlertSink
from tests.fakes.programs import Programs, find, free_port, run

OBSERVABILITY = Path(__file__).parents[2] / "observability"
CONFIG = OBSERVABILITY / "alertmanager" / "alertmanager.yml"
TOKEN = "sink-token-of-this-test"
ALERTS = {
    rule["alert"]: rule["labels"]
    for path in (OBSERVABILITY / "prometheus" / "rules").glob("*.yml")
    for group in yaml.safe_load(path.read_text())["groups"]
    for rule in group["rules"]
    if "alert" in rule
}


@pytest.mark.in_image
def test_configuration_is_valid() -> None:
    """Alertmanager accepts the configuration."""
    run(find("amtool", "prometheus-alertmanager"), "check-config", CONFIG)


@pytest.mark.in_image
def test_no_secret_stands_in_the_configuration() -> None:
    """Secrets are named by file only."""
    text = CONFIG.read_text()
    assert re.search(r"(?m)^[^#]*\b(credentials|password|api_url|routing_key|service_key|auth_password):", text) is None
    assert "credentials_file: /run/secrets/" in text


@pytest.mark.in_image
@pytest.mark.parametrize("alert", ["Watchdog", "AvailabilityFastBurn", "OllamaDown", "BackupStale", "GpuXid"])
def test_each_alert_takes_its_route(alert: str) -> None:
    """Severity decides: page, ticket, and nobody for the Watchdog."""
    labels = {"alertname": alert, **ALERTS[alert]}
    pairs = [f"{name}={value}" for name, value in labels.items()]
    amtool = find("amtool", "prometheus-alertmanager")
    done = run(amtool, "config", "routes", "test", f"--config.file={CONFIG}", *pairs)
    assert done.stdout.strip() == {"page": "page", "ticket": "ticket", "none": "null"}[labels["severity"]]


@pytest.mark.in_image
def test_inhibitions_name_alerts_that_exist() -> None:
    """A renamed alert cannot leave a dead inhibition behind."""
    for rule in yaml.safe_load(CONFIG.read_text())["inhibit_rules"]:
        for matcher in [*rule["source_matchers"], *rule["target_matchers"]]:
            name, pattern = re.split(r"\s*(?:=~|!~|!=|=)\s*", matcher, maxsplit=1)
            if name == "alertname":
                for part in pattern.strip('"').split("|"):
                    assert any(re.fullmatch(part, alert) for alert in ALERTS), part


@pytest.fixture(scope="module")
def sink(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AlertSink]:
    """The real sink on a free port."""
    served = AlertSink(tmp_path_factory.mktemp("sink") / "alerts.jsonl", port=0, token=TOKEN)
    served.start()
    yield served
    served.close()


@pytest.fixture(scope="module")
def alertmanager(sink: AlertSink, programs: Programs, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The real Alertmanager with the real configuration, waiting less and posting to this test's sink."""
    folder = tmp_path_factory.mktemp("alertmanager")
    (folder / "token").write_text(TOKEN)
    text = CONFIG.read_text().replace("http://alert-sink:9099", f"http://127.0.0.1:{sink.port}")
    text = text.replace("/run/secrets/alert_sink_token", str(folder / "token"))
    text = re.sub(r"group_wait: \w+", "group_wait: 1s", text)
    (folder / "alertmanager.yml").write_text(text)
    port = free_port()
    programs.start(
        [
            find("prometheus-alertmanager", "prometheus-alertmanager"),
            f"--config.file={folder}/alertmanager.yml",
            f"--storage.path={folder}/data",
            f"--web.listen-address=127.0.0.1:{port}",
            "--cluster.listen-address=",
        ],
        f"http://127.0.0.1:{port}/-/ready",
    )
    return f"http://127.0.0.1:{port}"


def fire(url: str, *names: str, **more: str) -> None:
    """Post alerts as Prometheus does."""
    body = [{"labels": {"alertname": name, **ALERTS[name], **more}, "annotations": {"summary": name}} for name in names]
    assert httpx.post(f"{url}/api/v2/alerts", json=body).status_code == 200


def heard(sink: AlertSink, group: str) -> set[tuple[str, str]]:
    """(receiver, alert) of what reached the sink with this `test` label."""
    return {(a["receiver"], a["labels"]["alertname"]) for a in list(sink.alerts) if a["labels"].get("test") == group}


def wait(sink: AlertSink, group: str, wanted: set[tuple[str, str]]) -> None:
    """Until exactly these have been heard."""
    deadline = time.monotonic() + 40
    while heard(sink, group) != wanted:
        assert time.monotonic() < deadline, (heard(sink, group), wanted)
        time.sleep(0.2)


def test_alerts_reach_the_sink_by_severity(alertmanager: str, sink: AlertSink) -> None:
    """A page and a ticket arrive at their receivers, are written to the file, and the Watchdog goes nowhere."""
    fire(alertmanager, "CircuitOpen", "DriftStale", "Watchdog", test="plain")
    wait(sink, "plain", {("page", "CircuitOpen"), ("ticket", "DriftStale")})
    written = [json.loads(line) for line in sink._file.path.read_text().splitlines()]
    assert {"page", "ticket"} <= {entry["receiver"] for entry in written}
    assert {entry["status"] for entry in written} == {"firing"}


def test_ollama_down_holds_back_what_follows_from_it(alertmanager: str, sink: AlertSink) -> None:
    """While OllamaDown fires, its consequences are not delivered; an unrelated alert is."""
    fire(alertmanager, "OllamaDown", "ModelFallbacks", "RunSuccessFastBurn", "BackupStale", test="ollama")
    wait(sink, "ollama", {("page", "OllamaDown"), ("ticket", "BackupStale")})
    time.sleep(1.5)  # one group_wait more: nothing comes late
    assert heard(sink, "ollama") == {("page", "OllamaDown"), ("ticket", "BackupStale")}


class TestSink:
    """The sink by itself."""

    def test_a_wrong_token_is_refused(self, sink: AlertSink) -> None:
        """Without the bearer token nothing is recorded."""
        before = len(sink.alerts)
        body = {"alerts": [{"status": "firing", "labels": {}}]}
        reply = httpx.post(f"http://127.0.0.1:{sink.port}/page", json=body, headers={"Authorization": "Bearer no"})
        assert reply.status_code == 401
        assert len(sink.alerts) == before

    @pytest.mark.parametrize("body", [b"{", b"[]", b'{"alerts": [{}]}', b'{"alerts": 3}'])
    def test_what_is_no_webhook_is_refused(self, sink: AlertSink, body: bytes) -> None:
        """A malformed body gives 400 and leaves the file whole."""
        headers = {"Authorization": f"Bearer {TOKEN}"}
        reply = httpx.post(f"http://127.0.0.1:{sink.port}/page", content=body, headers=headers)
        assert reply.status_code == 400
        assert "Not an Alertmanager webhook" in reply.json()["error"]
