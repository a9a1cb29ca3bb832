"""The drift report: one HTML page that stands alone, with a table and a plot for each feature."""

from __future__ import annotations

import html
import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from observability.drift.comparison import ENOUGH, LEVELS, Comparison, Feature

COLOURS = {"stable": "#1a7f37", "watch": "#9a6700", "drifted": "#cf222e", "insufficient": "#57606a"}
STYLE = """
:root { color-scheme: light dark } body { font: 15px/1.5 system-ui, sans-serif; max-width: 1100px; margin: 2rem auto;
padding: 0 1rem } h1 { font-size: 1.5rem; margin: 0 } h2 { font-size: 1.1rem; margin: 2rem 0 .5rem }
.scroll { overflow-x: auto }
table { border-collapse: collapse; width: 100% } th, td { text-align: left;
padding: .35rem .7rem; border-bottom: 1px solid #8884 } td.n, th.n { text-align: right; white-space: nowrap;
font-variant-numeric: tabular-nums }
.level { color: #fff; border-radius: 1rem; padding: .1rem .6rem; font-size: .85rem; white-space: nowrap }
.plots { display: grid; grid-template-columns: repeat(auto-fill, minmax(320px, 1fr)); gap: 1rem }
figure { margin: 0; background: #fff; border: 1px solid #8884; border-radius: 8px; padding: .5rem }
figure svg { width: 100%; height: auto } .quiet { color: #777 }
"""


@dataclass(frozen=True, slots=True)
class Findings:
    """What one run of the job found. `probe_answers` None: no prompts were sent."""

    at: datetime
    comparison: Comparison
    reference_span: str = ""
    window_span: str = ""
    probe_reference: Mapping[str, str] = field(default_factory=dict[str, str])
    probe_answers: Mapping[str, str] | None = None
    probe_changed: tuple[str, ...] = ()
    probe_problem: str = ""


def render(findings: Findings) -> str:
    """The page."""
    comparison = findings.comparison
    parts = [
        "<!doctype html><html lang='en'><meta charset='utf-8'>",
        "<meta name='viewport' content='width=device-width'><title>Drift report</title>",
        f"<style>{STYLE}</style><h1>Drift: {_badge(comparison.verdict)}</h1>",
        f"<p class='quiet'>{findings.at.astimezone(UTC):%Y-%m-%d %H:%M} UTC. "
        f"Reference {comparison.reference_rows} runs{_span(findings.reference_span)}; "
        f"window {comparison.window_rows} runs{_span(findings.window_span)}.</p>",
    ]
    if comparison.sufficient:
        parts += [_table(comparison), "<h2>Distributions</h2><div class='plots'>"]
        parts += [f"<figure>{_plot(feature)}</figure>" for feature in comparison.features if feature.bins]
        parts.append("</div>")
    else:
        parts.append(f"<p>Insufficient: both sides need {ENOUGH} runs for a verdict.</p>")
    parts.append(_probes(findings))
    return "\n".join(parts) + "\n</html>\n"


def _table(comparison: Comparison) -> str:
    rows = "".join(
        f"<tr><td>{html.escape(f.name)}</td><td>{_badge(LEVELS[f.level])}</td><td>{html.escape(f.reference)}</td>"
        f"<td>{html.escape(f.window)}</td><td>{_scores(f)}</td><td class='n'>{_small(f.p)}</td>"
        f"<td class='n'>{_small(f.q)}</td></tr>"
        for f in comparison.features
    )
    return (
        "<h2>Features</h2><div class='scroll'><table><tr><th>Feature<th>Verdict<th>Reference<th>Window<th>Distance"
        f"<th class='n'>p<th class='n'>corrected</tr>{rows}</table></div>"
        "<p class='quiet'>PSI: 0.1 is watched, 0.25 has drifted when its whole 95 % band lies above 0.1. "
        "'corrected': p after Benjamini and Hochberg's correction for many tests.</p>"
    )


def _scores(feature: Feature) -> str:
    texts = [f"{name} {value:.3f}" for name, value in sorted(feature.scores.items())]
    if feature.band is not None:
        texts.append(f"band {feature.band[0]:.2f} to {feature.band[1]:.2f}")
    return ", ".join(texts)


def _plot(feature: Feature) -> str:
    """Shares by bin, reference beside window, as inline SVG."""
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2, 2.6))
    figure.subplots_adjust(left=0.12, right=0.98, top=0.88, bottom=0.24)
    axes = figure.subplots()
    places = range(len(feature.bins))
    axes.bar([p - 0.2 for p in places], feature.reference_shares, 0.4, label="reference", color="#8c959f")
    axes.bar([p + 0.2 for p in places], feature.window_shares, 0.4, label="window", color="#0969da")
    title = f"{feature.name}: {LEVELS[feature.level]}"
    axes.set_title(title, fontsize=9, color=COLOURS[LEVELS[feature.level]], loc="left")
    axes.set_xticks(list(places), [label[:14] for label in feature.bins], rotation=45, ha="right", fontsize=7)
    axes.tick_params(axis="y", labelsize=7)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.legend(fontsize=7, frameon=False, loc="lower right", bbox_to_anchor=(1, 0.98), ncols=2, columnspacing=1)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    buffer = io.StringIO()
    # No date and a fixed salt for ids: the same findings give the same page.
    with mpl.rc_context({"svg.hashsalt": feature.name, "svg.fonttype": "none"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def _probes(findings: Findings) -> str:
    if findings.probe_problem:
        return f"<h2>Fixed prompts</h2><p>{html.escape(findings.probe_problem)}</p>"
    if findings.probe_answers is None:
        return ""
    changed = set(findings.probe_changed)
    rows = "".join(
        f"<tr><td>{html.escape(name)}</td><td>{_badge('drifted' if name in changed else 'stable')}</td>"
        f"<td>{html.escape(findings.probe_reference.get(name, '(new)'))}</td><td>{html.escape(answer)}</td></tr>"
        for name, answer in sorted(findings.probe_answers.items(), key=lambda pair: (pair[0] not in changed, pair[0]))
    )
    return (
        f"<h2>Fixed prompts: {len(changed)} of {len(findings.probe_answers)} answered otherwise</h2>"
        f"<div class='scroll'><table><tr><th>Prompt<th>Verdict<th>Reference<th>Now</tr>{rows}</table></div>"
    )


def _badge(level: str) -> str:
    return f"<span class='level' style='background:{COLOURS[level]}'>{level}</span>"


def _span(text: str) -> str:
    return f" ({html.escape(text)})" if text else ""


def _small(value: float) -> str:
    return f"{value:.3f}" if value >= 0.001 else f"{value:.0e}"
