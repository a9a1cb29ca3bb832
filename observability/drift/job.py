"""One run of the drift job, and the loop around it.

State below one folder: `reference.jsonl` (frozen rows, as columns), `probes.json` (the reference's answers),
`reports/latest.html` and the 48 before it, `last.json` (the last findings in short).
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from prometheus_client import CollectorRegistry

from observability import names
from observability.drift import probe
from observability.drift.comparison import ENOUGH, Comparison, compare
from observability.drift.errors import DriftError, NoReference, RowsUnreadable
from observability.drift.features import Rows, read
from observability.drift.probe import ProbeFailed, Prober
from observability.drift.report import Findings, render
from observability.exposition import Series

log = logging.getLogger("drift")

REFERENCE_MOST = 5000
REPORTS = 48
EACH, ALIVE = 3600.0, 120.0
"""Seconds between comparisons, and between liveness prompts."""

_METRICS = (
    *(names.DRIFT_SCORE, names.DRIFT_LEVEL, names.DRIFT_SAMPLES, names.DRIFT_SUFFICIENT, names.DRIFT_LAST_RUN),
    *(names.PROBE_LAST_SUCCESS, names.PROBE_FAILURES, names.PROBE_SECONDS, names.PROBE_CHANGED, names.TLS_EXPIRY),
)


@dataclass(frozen=True, slots=True)
class Settings:
    """Where rows come from, where state goes, whom to ask."""

    rows: str
    state: Path
    window_hours: float = 24
    variant: str | None = None


class Reference:
    """The frozen side of the comparison."""

    def __init__(self, state: Path) -> None:
        self._rows = state / "reference.jsonl"
        self._answers = state / "probes.json"

    def freeze(self, rows: Rows) -> None:
        """Take these rows (the newest of them) as the reference. Raises NoReference under 500 rows."""
        if len(rows) < ENOUGH:
            raise NoReference(f"Too few runs for a reference: {len(rows)}. Wait until there are {ENOUGH}.")
        chosen = rows.where(np.arange(len(rows)) >= len(rows) - REFERENCE_MOST)
        lines = [json.dumps({"times": chosen.times.tolist()})]
        for group in ("numbers", "words"):
            for name, values in getattr(chosen, group).items():
                present = [None if value != value else value for value in values.tolist()]
                lines.append(json.dumps({group: name, "values": present}))
        _replace(self._rows, "\n".join(lines) + "\n")

    def rows(self) -> Rows | None:
        """The frozen rows; None before the first freeze. Raises RowsUnreadable for a damaged file."""
        if not self._rows.exists():
            return None
        try:
            first, *rest = (json.loads(line) for line in self._rows.read_text().splitlines())
            numbers = {
                line["numbers"]: np.array([np.nan if v is None else v for v in line["values"]], dtype=np.float64)
                for line in rest
                if "numbers" in line
            }
            words = {line["words"]: np.array(line["values"], dtype=np.str_) for line in rest if "words" in line}
            return Rows(np.array(first["times"], dtype=np.float64), numbers, words)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RowsUnreadable(
                f"Reference unusable ({error}), {self._rows}. Freeze another: 'drift run --freeze'."
            ) from error

    def answers(self) -> dict[str, str]:
        """The reference's answers to the fixed prompts; empty before the first freeze."""
        try:
            return dict(json.loads(self._answers.read_text()))
        except (OSError, ValueError):
            return {}

    def keep_answers(self, answers: dict[str, str]) -> None:
        """Take these answers as the reference."""
        _replace(self._answers, json.dumps(answers, indent=1, ensure_ascii=False) + "\n")


def run(settings: Settings, prober: Prober | None, *, now: float, freeze: bool = False) -> Findings:
    """Compare once and write the report; `freeze` makes the present the reference first.

    The first 500 runs become the reference by themselves. Raises RowsUnreadable, NoReference.
    """
    settings.state.mkdir(parents=True, exist_ok=True)
    reference = Reference(settings.state)
    every = read(settings.rows, variant=settings.variant)
    frozen = reference.rows()
    if freeze or (frozen is None and len(every) >= ENOUGH):
        chosen = every if freeze else every.where(np.arange(len(every)) < ENOUGH)
        reference.freeze(chosen)
        log.info("reference frozen: %d runs", len(chosen))
        frozen = reference.rows()
    after = max(now - settings.window_hours * 3600, float(frozen.times[-1]) if frozen is not None else 0.0)
    window = every.where(every.times > after)
    comparison = Comparison(0, len(window)) if frozen is None else compare(frozen, window)
    answers, changed, problem = _ask(prober, reference, freeze)
    findings = Findings(
        at=datetime.fromtimestamp(now, UTC),
        comparison=comparison,
        reference_span=_span(frozen),
        window_span=_span(window),
        probe_reference=reference.answers(),
        probe_answers=answers,
        probe_changed=tuple(changed),
        probe_problem=problem,
    )
    _write(settings.state, findings)
    return findings


class Service:
    """The loop: a liveness prompt every two minutes, a comparison every hour, all as metrics."""

    def __init__(
        self,
        settings: Settings,
        prober: Prober | None,
        registry: CollectorRegistry,
        *,
        tls: tuple[str, int] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings, self._prober, self._tls, self._clock = settings, prober, tls, clock
        self._series = Series(_METRICS, registry)
        self._series.inc(names.PROBE_FAILURES, 0)
        # Alerts count from the start of this process, not from 1970.
        self._series.set(names.DRIFT_LAST_RUN, clock())
        self._series.set(names.PROBE_LAST_SUCCESS, clock())

    def compare(self) -> Findings | None:
        """One comparison; a failure is logged, and shows by the age of the last run. None when it failed."""
        try:
            findings = run(self._settings, self._prober, now=self._clock())
        except (DriftError, OSError) as error:
            log.error("%s", error)
            return None
        self._show(findings)
        log.info("drift: %s", findings.comparison.verdict)
        return findings

    def alive(self) -> bool:
        """One liveness prompt, and a look at the certificate. Returns whether the prompt was answered."""
        answered = True
        if self._prober is not None:
            try:
                answer = self._prober.ask(probe.LIVENESS, most=8)
            except ProbeFailed as error:
                log.error("%s", error)
                self._series.inc(names.PROBE_FAILURES)
                answered = False
            else:
                self._series.set(names.PROBE_LAST_SUCCESS, self._clock())
                self._series.set(names.PROBE_SECONDS, answer.seconds)
        if self._tls is not None:
            try:
                self._series.set(names.TLS_EXPIRY, probe.certificate_end(*self._tls), server=self._tls[0])
            except ProbeFailed as error:
                log.error("%s", error)
        return answered

    def loop(self, stop: threading.Event) -> None:
        """Until `stop` is set."""
        due = 0.0
        while not stop.is_set():
            self.alive()
            if time.monotonic() >= due:
                self.compare()
                due = time.monotonic() + EACH
            stop.wait(ALIVE)

    def _show(self, findings: Findings) -> None:
        comparison = findings.comparison
        self._series.clear(names.DRIFT_SCORE)
        self._series.clear(names.DRIFT_LEVEL)
        for feature in comparison.features:
            self._series.set(names.DRIFT_LEVEL, feature.level, feature=feature.name)
            for method, value in feature.scores.items():
                self._series.set(names.DRIFT_SCORE, value, feature=feature.name, method=method)
        self._series.set(names.DRIFT_SAMPLES, comparison.reference_rows, set="reference")
        self._series.set(names.DRIFT_SAMPLES, comparison.window_rows, set="window")
        self._series.set(names.DRIFT_SUFFICIENT, float(comparison.sufficient))
        self._series.set(names.DRIFT_LAST_RUN, findings.at.timestamp())
        if findings.probe_answers:
            share = len(findings.probe_changed) / len(findings.probe_answers)
            self._series.set(names.PROBE_CHANGED, share)


def _ask(prober: Prober | None, reference: Reference, freeze: bool) -> tuple[dict[str, str] | None, list[str], str]:
    if prober is None:
        return None, [], ""
    try:
        answers = prober.ask_all(probe.prompts())
    except ProbeFailed as error:
        return None, [], str(error)
    before = reference.answers()
    if freeze or not before:
        reference.keep_answers(answers)
        before = answers
    return answers, probe.changed(before, answers), ""


def _write(state: Path, findings: Findings) -> None:
    reports = state / "reports"
    reports.mkdir(exist_ok=True)
    page = render(findings)
    _replace(reports / f"{findings.at:%Y%m%dT%H%M%SZ}.html", page)
    _replace(reports / "latest.html", page)
    for old in sorted(reports.glob("2*.html"))[:-REPORTS]:
        old.unlink()
    comparison = findings.comparison
    last = {
        "at": findings.at.isoformat(),
        "verdict": comparison.verdict,
        "reference_rows": comparison.reference_rows,
        "window_rows": comparison.window_rows,
        "features": {f.name: {"level": f.level, "q": f.q, **f.scores} for f in comparison.features},
        "probes_changed": list(findings.probe_changed),
        "probe_problem": findings.probe_problem,
    }
    _replace(state / "last.json", json.dumps(last, indent=1) + "\n")


def _span(rows: Rows | None) -> str:
    if rows is None or not len(rows):
        return ""
    ends = (datetime.fromtimestamp(float(rows.times[place]), UTC) for place in (0, -1))
    return " to ".join(f"{end:%Y-%m-%d %H:%M}" for end in ends)


def _replace(path: Path, text: str) -> None:
    part = path.with_name(f".{path.name}.part")
    part.write_text(text)
    part.replace(path)
