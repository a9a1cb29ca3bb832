"""The drift job end to end: rows from a store, fixed prompts over HTTP, metrics, the report, the command line."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from prometheus_client import CollectorRegistry
from typer.testing import CliRunner

from observability.cli import app
from observability.drift import job, probe
from observability.drift.comparison import compare
from observability.drift.errors import NoReference, RowsUnreadable
from observability.drift.features import COLUMNS, read
from observability.drift.probe import ProbeFailed, Prober
from tests.fakes.pages import Pages
from tests.fakes.programs import find, run

pytestmark = pytest.mark.in_image

DAY = 86400.0
NOW = 1_790_000_000.0


def record(rng: np.random.Generator, at: float, *, longer: float = 1.0, refusal: float = 0.03) -> dict[str, object]:
    """One run's feature row, as the service writes it."""
    return {
        "at": at,
        "variant": "stable" if rng.random() < 0.9 else "canary",
        "model": "gemma3n:e4b",
        "model_digest": "sha256:1",
        "tool_errors": int(rng.random() < 0.02),
        "prompt_tokens": int(rng.lognormal(5, 0.8)),
        "completion_tokens": int(rng.lognormal(4.5, 0.6) * longer),
        "turns": 1 + int(rng.poisson(1)),
        "tool_calls": int(rng.poisson(1)),
        "seconds": float(rng.gamma(3)),
        "ttft_seconds": float(rng.gamma(4, 0.1)) if rng.random() < 0.9 else None,
        "tokens_per_second": float(rng.normal(30, 3)),
        "refusal": int(rng.random() < refusal),
        "json_valid": None,
        "user_retry": int(rng.random() < 0.05),
        "outcome": "completed" if rng.random() < 0.95 else "max_steps",
        "finish_reason": "stop",
        "script": "latin" if rng.random() < 0.9 else "cyrillic",
    }


def records(start: float, count: int, seed: int, **shift: float) -> list[dict[str, object]]:
    """Runs spread over a day from `start`."""
    rng = np.random.default_rng(seed)
    return [record(rng, start + DAY * (n + 1) / (count + 1), **shift) for n in range(count)]


def store(path: Path, rows: list[dict[str, object]]) -> Path:
    """A SQLite run store with these feature rows, and the column that must never be read: text."""
    with closing(sqlite3.connect(path)) as db:
        db.execute(f"CREATE TABLE run_features (run_id TEXT, {', '.join(COLUMNS)})")
        marks = ", ".join("?" for _ in COLUMNS)
        db.executemany(
            f"INSERT INTO run_features VALUES ('run_1', {marks})", [[row[name] for name in COLUMNS] for row in rows]
        )
        db.commit()
    return path


class Model:
    """A served model: answers by prompt, or a status that it refuses with."""

    def __init__(self) -> None:
        self.answers: dict[str, str] = {}
        self.status = 200

    def chat(self, body: bytes) -> tuple[int, str]:
        """POST /v1/chat/completions."""
        asked = json.loads(body)
        assert asked["temperature"] == 0
        assert asked["model"] == "gemma3n:e4b"
        if self.status != 200:
            return self.status, json.dumps({"error": {"message": "The queue is full."}})
        prompt = asked["messages"][0]["content"]
        text = self.answers.get(prompt, f"The answer to {prompt}")
        return 200, json.dumps({"choices": [{"message": {"content": text}}]})


@pytest.fixture
def model() -> Model:
    """A model that answers each prompt always alike."""
    return Model()


@pytest.fixture
def prober(model: Model) -> Iterator[Prober]:
    """Asks that model over HTTP; the service lists an agent first, which is not what probes are for."""
    listed = json.dumps({"data": [{"id": "agent/default"}, {"id": "gemma3n:e4b"}]})
    with Pages({"/v1/models": listed, "/v1/chat/completions": model.chat}) as pages:
        asks = Prober(pages.url, "al_key")
        yield asks
        asks.close()
        assert all(headers["authorization"] == "Bearer al_key" for _, headers in pages.asked)


class TestReading:
    """Rows from each place."""

    def test_a_store_and_a_file_of_the_same_rows_read_alike(self, tmp_path: Path) -> None:
        """SQLite and JSONL give equal columns; a last line that is half written is left out."""
        rows = records(NOW, 50, 1)
        file = tmp_path / "rows.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"at": 1, "var')
        path = store(tmp_path / "runs.db", rows)
        from_file = read(str(file))
        for location in (str(path), f"sqlite:///{path}", f"sqlite+aiosqlite:///{path}"):
            from_store = read(location)
            assert len(from_store) == len(from_file) == 50
            for name, values in from_file.numbers.items():
                np.testing.assert_array_equal(values, from_store.numbers[name])
            assert {k: v.tolist() for k, v in from_file.words.items()} == {
                k: v.tolist() for k, v in from_store.words.items()
            }

    def test_time_and_variant_choose_rows(self, tmp_path: Path) -> None:
        """Only later rows, only of that variant."""
        rows = records(NOW, 60, 1)
        path = str(store(tmp_path / "runs.db", rows))
        half = NOW + DAY / 2
        assert len(read(path, since=half)) == sum(float(str(row["at"])) > half for row in rows)
        assert len(read(path, variant="canary")) == sum(row["variant"] == "canary" for row in rows) > 0

    @pytest.mark.parametrize(
        ("name", "content", "message"),
        [
            ("missing.db", None, "No run store"),
            ("no.db", b"this is no database, but it is long enough to be looked at as one", "Is this the service's"),
            ("rows.jsonl", b'{"at": 1}\n[]\n{"at": 2}\n', "rows.jsonl:2"),
            ("rows.jsonl", b'{"turns": 1}\n{"turns": 2}\n', "Its columns are"),
        ],
    )
    def test_what_cannot_be_read_is_said(self, name: str, content: bytes | None, message: str, tmp_path: Path) -> None:
        """One line with the place."""
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(RowsUnreadable, match=message) as caught:
            read(str(tmp_path / name))
        assert str(tmp_path) in str(caught.value)

    def test_no_password_in_a_message(self) -> None:
        """A database that does not answer is named without its password."""
        with pytest.raises(RowsUnreadable) as caught:
            read("postgresql://agent:s3cret@127.0.0.1:9/runs")
        assert "s3cret" not in str(caught.value)


class TestReference:
    """The frozen side."""

    def test_it_comes_back_as_it_was(self, tmp_path: Path) -> None:
        """Comparing with the frozen rows gives what comparing with the rows themselves gives, absent values too."""
        rows = read(str(store(tmp_path / "runs.db", records(NOW, 600, 1))))
        reference = job.Reference(tmp_path)
        reference.freeze(rows)
        back = reference.rows()
        assert back is not None
        other = read(str(store(tmp_path / "other.db", records(NOW, 600, 2))))
        assert compare(back, other) == compare(rows, other)

    def test_too_few_runs_are_no_reference(self, tmp_path: Path) -> None:
        """499 are refused with their number."""
        rows = read(str(store(tmp_path / "runs.db", records(NOW, 499, 1))))
        with pytest.raises(NoReference, match="499"):
            job.Reference(tmp_path).freeze(rows)

    def test_a_damaged_one_is_said(self, tmp_path: Path) -> None:
        """A file cut short is named, with the way out."""
        reference = job.Reference(tmp_path)
        reference.freeze(read(str(store(tmp_path / "runs.db", records(NOW, 600, 1)))))
        file = tmp_path / "reference.jsonl"
        file.write_text(file.read_text()[:-40])
        with pytest.raises(RowsUnreadable, match="--freeze"):
            reference.rows()


class TestRun:
    """One run of the job."""

    def settings(self, tmp_path: Path, *rows: list[dict[str, object]]) -> job.Settings:
        """A store of these rows and an empty state."""
        path = store(tmp_path / "runs.db", [row for part in rows for row in part])
        return job.Settings(str(path), tmp_path / "state")

    def test_few_runs_are_insufficient(self, tmp_path: Path) -> None:
        """With 300 runs there is no reference and no verdict, but a report that says so."""
        settings = self.settings(tmp_path, records(NOW - DAY, 300, 1))
        findings = job.run(settings, None, now=NOW)
        assert findings.comparison.verdict == "insufficient"
        assert not (tmp_path / "state" / "reference.jsonl").exists()
        assert "Insufficient" in (tmp_path / "state" / "reports" / "latest.html").read_text()

    def test_the_first_runs_become_the_reference_and_a_shift_is_found(self, tmp_path: Path) -> None:
        """500 early runs are frozen by themselves; a day of longer answers and more refusals is called drifted."""
        early = records(NOW - 5 * DAY, 500, 1)
        late = records(NOW - DAY, 700, 2, longer=2.0, refusal=0.2)
        findings = job.run(self.settings(tmp_path, early, late), None, now=NOW)
        assert findings.comparison.verdict == "drifted"
        drifted = {feature.name for feature in findings.comparison.features if feature.level == 2}
        assert {"completion_tokens", "refusal"} <= drifted
        assert "prompt_tokens" not in drifted

    def test_more_of_the_same_is_stable(self, tmp_path: Path) -> None:
        """Another day of the same kind of runs is not drift; what is older than the window does not count."""
        between = records(NOW - 3 * DAY, 600, 9, longer=5.0)
        rows = (records(NOW - 5 * DAY, 500, 1), between, records(NOW - DAY, 700, 2))
        findings = job.run(self.settings(tmp_path, *rows), None, now=NOW)
        assert findings.comparison.window_rows == 700
        assert findings.comparison.verdict == "stable"

    def test_freezing_accepts_the_present(self, tmp_path: Path) -> None:
        """After --freeze the drifted runs are the reference, and nothing later than it exists yet."""
        settings = self.settings(tmp_path, records(NOW - 5 * DAY, 500, 1), records(NOW - DAY, 700, 2, longer=2.0))
        assert job.run(settings, None, now=NOW).comparison.verdict == "drifted"
        findings = job.run(settings, None, now=NOW, freeze=True)
        assert (findings.comparison.reference_rows, findings.comparison.window_rows) == (1200, 0)
        assert findings.comparison.verdict == "insufficient"

    def test_only_so_many_reports_are_kept(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The oldest go."""
        monkeypatch.setattr(job, "REPORTS", 3)
        settings = self.settings(tmp_path, records(NOW - DAY, 10, 1))
        for hour in range(5):
            job.run(settings, None, now=NOW + 3600 * hour)
        assert len(list((tmp_path / "state" / "reports").glob("2*.html"))) == 3


class TestProbes:
    """Fixed prompts."""

    def test_changed_answers_are_named(self, tmp_path: Path, model: Model, prober: Prober) -> None:
        """The first answers are the reference; when two of ten change, those two are named and shown."""
        settings = TestRun().settings(tmp_path, records(NOW - DAY, 10, 1))
        assert job.run(settings, prober, now=NOW).probe_changed == ()
        fixed = probe.prompts()
        model.answers[fixed["sum"]] = "43"
        model.answers[fixed["capital"]] = "<script>alert(1)</script> Kyoto"
        findings = job.run(settings, prober, now=NOW + 3600)
        assert set(findings.probe_changed) == {"sum", "capital"}
        page = (tmp_path / "state" / "reports" / "latest.html").read_text()
        assert "&lt;script&gt;" in page
        assert "<script>" not in page
        assert job.run(settings, prober, now=NOW + 7200, freeze=False).probe_changed == findings.probe_changed

    def test_a_word_more_in_a_long_answer_is_the_same(self) -> None:
        """Answers are compared by words: nearly equal ones are alike, other ones are not."""
        long = "one two three four five six seven eight"
        assert probe.changed({"a": long, "b": "yes"}, {"a": f"{long} nine", "b": "no", "new": "x"}) == ["b"]

    def test_no_answer_is_a_line_not_a_crash(self, tmp_path: Path, model: Model, prober: Prober) -> None:
        """A service that refuses leaves the comparison of rows as it is, and is named in the report."""
        model.status = 503
        settings = TestRun().settings(tmp_path, records(NOW - DAY, 10, 1))
        findings = job.run(settings, prober, now=NOW)
        assert "503" in findings.probe_problem
        assert "The queue is full." in findings.probe_problem
        assert findings.probe_answers is None

    def test_nobody_there(self) -> None:
        """A connection that is refused gives the address and a question to ask oneself."""
        prober = Prober("http://127.0.0.1:9", model="m")
        with pytest.raises(ProbeFailed, match=r"127\.0\.0\.1:9. Is the service up\?"):
            prober.ask("x")
        prober.close()

    def test_the_end_of_a_certificate(self, tmp_path: Path) -> None:
        """What we read from the certificate is what openssl says, for near and far ends (two forms of a date)."""
        for days in (10, 20_000):
            key, cert = tmp_path / f"{days}.key", tmp_path / f"{days}.pem"
            run(
                find("openssl", "openssl"), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
                "-nodes", "-days", str(days), "-subj", "/CN=localhost", "-keyout", key, "-out", cert,
            )  # fmt: skip
            said = run(find("openssl", "openssl"), "x509", "-in", cert, "-noout", "-enddate").stdout.strip()
            wanted = datetime.strptime(said.removeprefix("notAfter="), "%b %d %H:%M:%S %Y GMT").replace(tzinfo=UTC)
            der = probe.ssl.PEM_cert_to_DER_cert(cert.read_text())
            assert probe._not_after(der) == wanted
            assert abs(wanted - datetime.now(UTC) - timedelta(days=days)) < timedelta(days=1)


def test_metrics_follow_the_findings(tmp_path: Path, model: Model, prober: Prober) -> None:
    """Levels, scores, samples, probes and ages are exported; failures count and leave the last success alone."""
    registry = CollectorRegistry()
    rows = records(NOW - 5 * DAY, 500, 1) + records(NOW - DAY, 700, 2, longer=2.0)
    settings = job.Settings(str(store(tmp_path / "runs.db", rows)), tmp_path / "state")
    clock = [NOW]
    service = job.Service(settings, prober, registry, clock=lambda: clock[0])

    def value(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(name, labels)

    assert service.alive()
    assert service.compare() is not None
    assert value("agent_loop_drift_level", feature="completion_tokens") == 2
    assert (value("agent_loop_drift_score", feature="completion_tokens", method="psi") or 0) > 0.25
    assert value("agent_loop_drift_samples", set="window") == 700
    assert value("agent_loop_drift_sufficient") == 1
    assert value("agent_loop_probe_changed_ratio") == 0
    model.status = 500
    clock[0] += 600
    assert not service.alive()
    assert value("agent_loop_probe_failures_total") == 1
    assert value("agent_loop_probe_last_success_timestamp_seconds") == NOW
    (tmp_path / "runs.db").unlink()
    assert service.compare() is None
    assert value("agent_loop_drift_last_run_timestamp_seconds") == NOW


class TestCommandLine:
    """What a person types."""

    def test_run_prints_verdict_and_report(self, tmp_path: Path) -> None:
        """The verdict, what drifted, and a file that exists."""
        now = time.time()
        rows = records(now - 5 * DAY, 500, 1) + records(now - 1.01 * DAY, 700, 2, longer=2.0)
        words = ["drift", "run", "--rows", str(store(tmp_path / "runs.db", rows)), "--state", str(tmp_path / "state")]
        result = CliRunner().invoke(app, [*words, "--window-hours", "48"])
        assert result.exit_code == 0, result.stderr
        assert result.stdout.startswith("drifted: 700 runs against 500")
        assert "completion_tokens: drifted" in result.stdout
        assert Path(result.stdout.split("Report: ")[1].strip()).exists()

    @pytest.mark.parametrize("words", [["run", "--rows", "/nowhere.db"], ["report"]])
    def test_nothing_there_is_one_line(self, words: list[str], tmp_path: Path) -> None:
        """Exit status 2 and what to do."""
        result = CliRunner().invoke(app, ["drift", *words, "--state", str(tmp_path / "state")])
        assert result.exit_code == 2
        assert len(result.stderr.strip().splitlines()) == 1
