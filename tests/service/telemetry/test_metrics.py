"""Metrics: names follow the rules, counts add up, several processes answer with one sum."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from service.telemetry import lag, multiprocess, names
from service.telemetry.metrics import Metrics
from tests.fakes.server import serving

pytestmark = pytest.mark.in_image


def read(metrics: Metrics) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    body, _ = metrics.expose()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in parse_text(body.decode())
        for sample in family.samples
    }


class TestNames:
    @pytest.mark.parametrize("metric", names.METRICS, ids=lambda metric: metric.name)
    def test_a_name_has_its_prometheus_form(self, metric: names.Metric) -> None:
        """Counters alone end in _total; an OpenTelemetry name is the Prometheus name's stem."""
        assert re.fullmatch(r"[a-z][a-z0-9_]*", metric.name)
        assert metric.name.endswith("_total") == (metric.kind == "counter")
        assert metric.help.endswith(".")
        if metric.otel:
            assert metric.name.startswith(metric.otel.replace(".", "_"))

    @pytest.mark.parametrize("metric", names.METRICS, ids=lambda metric: metric.name)
    def test_buckets_belong_to_histograms_and_rise(self, metric: names.Metric) -> None:
        """Every histogram states its buckets, in rising order; nothing else has any."""
        assert bool(metric.buckets) == (metric.kind == "histogram")
        assert list(metric.buckets) == sorted(set(metric.buckets))

    def test_the_objective_for_the_first_token_is_a_bucket_bound(self) -> None:
        """2.5 s, on which the SLO counts, needs no interpolation."""
        assert 2.5 in names.FIRST_TOKEN.buckets

    def test_no_label_can_hold_a_person_or_a_run(self) -> None:
        """Ids of keys, users, sessions and runs go to logs and exemplars, never to labels."""
        labels = {label for metric in names.METRICS for label in metric.labels}
        assert not [label for label in labels if re.search(r"(key|user|session|run)(_id)?$", label)]

    def test_series_lists_what_a_scrape_holds(self) -> None:
        """What rules may use is what the page shows: no more, no less (creation times and process series
        aside).
        """
        metrics = Metrics(models=["m"])
        for metric in names.METRICS:
            labels = dict.fromkeys(metric.labels, "x")
            if metric.kind == "histogram":
                metrics.observe(metric, 1.0, **labels)
            elif metric.kind == "gauge":
                metrics.set(metric, 1.0, **labels)
            else:
                metrics.inc(metric, **labels)
        shown = {name for name, _ in read(metrics) if not name.startswith("process_")}
        shown = {name for name in shown if not name.endswith("_created")}
        assert shown == names.series()


class TestCounting:
    def test_known_label_values_start_at_zero(self) -> None:
        """An outcome that has not happened yet is a 0, so that rate() sees its first event."""
        samples = read(Metrics())
        for outcome in names.Outcome:
            assert samples[("agent_loop_runs_total", (("outcome", outcome.value),))] == 0

    def test_one_circuit_state_is_current(self) -> None:
        """Setting a state clears the others."""
        metrics = Metrics()
        metrics.circuit(names.CircuitState.OPEN)
        assert [metrics.value(names.CIRCUIT, state=state) for state in names.CircuitState] == [0, 1, 0]

    def test_a_strange_model_becomes_other(self) -> None:
        """A client cannot make a series by naming a model."""
        metrics = Metrics(models=["gemma3n"])
        assert (metrics.model("gemma3n"), metrics.model("x" * 500)) == ("gemma3n", "other")

    def test_an_active_gauge_comes_back_when_the_block_fails(self) -> None:
        """In-flight counts do not leak through exceptions."""
        metrics = Metrics()

        def fail() -> None:
            with metrics.active(names.HTTP_ACTIVE):
                assert metrics.value(names.HTTP_ACTIVE) == 1
                raise ValueError

        with pytest.raises(ValueError):
            fail()
        assert metrics.value(names.HTTP_ACTIVE) == 0

    def test_a_run_is_an_exemplar_not_a_label(self) -> None:
        """The run id is in the OpenMetrics page's exemplar and in no label."""
        metrics = Metrics()
        metrics.observe(names.RUN_DURATION, 1.0, run="run_abc", gen_ai_agent_name="a")
        body, content_type = metrics.expose("application/openmetrics-text; version=1.0.0")
        assert content_type.startswith("application/openmetrics-text")
        samples = [s for family in parse_openmetrics(body.decode()) for s in family.samples]
        assert {"run_id": "run_abc"} in [s.exemplar.labels for s in samples if s.exemplar]
        assert not [s for s in samples if "run_abc" in s.labels.values()]

    def test_forgetting_a_model_takes_its_series_away(self) -> None:
        """An unloaded model leaves no stale gauge; forgetting twice is no error."""
        metrics = Metrics()
        metrics.set(names.OLLAMA_LOADED, 1, model="m")
        metrics.forget(names.OLLAMA_LOADED, model="m")
        metrics.forget(names.OLLAMA_LOADED, model="m")
        assert not [name for name, _ in read(metrics) if name == "ollama_model_loaded"]


WORKER = """
import json, sys
from service.telemetry import names
from service.telemetry.metrics import Metrics
metrics = Metrics(models=["m"])
for line in sys.stdin:
    verb = line.strip()
    if verb == "count":
        metrics.inc(names.RUNS, outcome="completed")
        metrics.inc(names.HTTP_ACTIVE)
        metrics.observe(names.RUN_DURATION, 1.0, run="run_1", gen_ai_agent_name="a")
    elif verb == "close":
        metrics.close()
        print("closed", flush=True)
        break
    elif verb == "show":
        print(json.dumps(metrics.expose()[0].decode()), flush=True)
"""


class TestSeveralProcesses:
    def test_two_workers_answer_with_one_sum(self, tmp_path: Path) -> None:
        """Either worker's page shows both workers' counts, and a worker that ended takes its live gauges
        along.
        """
        environment = {**os.environ, multiprocess.VARIABLE: str(tmp_path)}
        workers = [
            subprocess.Popen(
                [sys.executable, "-c", WORKER],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env=environment,
            )
            for _ in range(2)
        ]

        def say(index: int, verb: str) -> None:
            stream = workers[index].stdin
            assert stream is not None
            stream.write(verb + "\n")
            stream.flush()

        def page(index: int) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
            say(index, "show")
            stream = workers[index].stdout
            assert stream is not None
            text = json.loads(stream.readline())
            return {(s.name, tuple(sorted(s.labels.items()))): s.value for f in parse_text(text) for s in f.samples}

        completed = ("agent_loop_runs_total", (("outcome", "completed"),))
        try:
            page(0), page(1)  # both are up and have written their files
            say(0, "count")
            say(1, "count")
            say(1, "count")
            first, second = page(0), page(1)
            first = page(0)
            assert first[completed] == second[completed] == 3
            assert first[_run_count(first)] == 3
            assert first[("http_server_active_requests", ())] == 3
            say(1, "close")
            assert workers[1].stdout is not None
            assert workers[1].stdout.readline().strip() == "closed"
            after = page(0)
            assert after[completed] == 3
            assert after[("http_server_active_requests", ())] == 1
        finally:
            for worker in workers:
                worker.kill()
                worker.communicate()

    def test_preparing_the_folder_removes_an_old_start(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Files of a former start would be counted again: they go, other files stay."""
        monkeypatch.setenv(multiprocess.VARIABLE, str(tmp_path / "shared"))
        (tmp_path / "shared").mkdir()
        (tmp_path / "shared" / "counter_1.db").write_bytes(b"old")
        (tmp_path / "shared" / "note.txt").write_text("mine")
        assert multiprocess.prepare() == tmp_path / "shared"
        assert [path.name for path in (tmp_path / "shared").iterdir()] == ["note.txt"]
        assert os.environ[multiprocess.VARIABLE] == str(tmp_path / "shared")


def _run_count(
    page: dict[tuple[str, tuple[tuple[str, str], ...]], float],
) -> tuple[str, tuple[tuple[str, str], ...]]:
    (found,) = [key for key in page if key[0] == "gen_ai_invoke_agent_duration_seconds_count"]
    return found


class Remembering(Metrics):
    """Keeps every value that the lag gauge had."""

    def __init__(self) -> None:
        super().__init__()
        self.lags: list[float] = []

    def set(self, metric: names.Metric, value: float, **labels: str) -> None:
        if metric is names.LOOP_LAG:
            self.lags.append(value)
        super().set(metric, value, **labels)


@pytest.mark.anyio
class TestLoopLag:
    async def test_a_blocked_loop_shows(self) -> None:
        """What keeps the event loop from its work is seen as lateness."""
        metrics = Remembering()
        watching = asyncio.create_task(lag.watch(metrics, every=0.01))
        await asyncio.sleep(0.05)
        time.sleep(0.5)  # noqa: ASYNC251
        await asyncio.sleep(0.05)
        watching.cancel()
        assert max(metrics.lags) > 0.4

    async def test_the_service_watches(self, tmp_path: Path) -> None:
        """One watch runs while the service does."""
        async with serving(tmp_path):
            assert [task.get_name() for task in asyncio.all_tasks()].count("loop-lag") == 1
