"""What a run tells: one stream of records, read by whoever listens.

A record is a flat dictionary with "step" and "time" (seconds since 1970) and numbers beside them:
loss, lr, grad_norm, tokens, tokens_per_second, mfu, memory_gib, gpu_watts, gpu_celsius, seconds_left; or eval_loss;
or, once at the end, peak_memory_gib and planned_memory_gib.
A listener has `log(record)` and `close()`; one that can show texts has `tell(step, texts)` too. To add one, write such
a class and name it in `loop` or `trackers`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO, Any, Protocol, runtime_checkable

Record = Mapping[str, float]


class Listener(Protocol):
    """Hears every record."""

    def log(self, record: Record) -> None:
        """Take one record."""
        ...

    def close(self) -> None:
        """The run is over."""
        ...


@runtime_checkable
class Teller(Protocol):
    """Hears texts as well."""

    def tell(self, step: int, texts: Mapping[str, str]) -> None:
        """Take texts in Markdown by their titles."""
        ...


class Metrics:
    """Hands each record to all listeners."""

    def __init__(self, listeners: Iterable[Listener]) -> None:
        self.listeners = list(listeners)

    def log(self, record: Record) -> None:
        """Tell all listeners."""
        for listener in self.listeners:
            listener.log(record)

    def tell(self, step: int, texts: Mapping[str, str]) -> None:
        """Tell those that show texts."""
        for listener in self.listeners:
            if texts and isinstance(listener, Teller):
                listener.tell(step, texts)

    def close(self) -> None:
        """Close all listeners."""
        for listener in self.listeners:
            listener.close()


class JsonLines:
    """`metrics.jsonl`: each record a line, flushed, so that a killed run keeps what it logged."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.file: IO[str] = path.open("a")

    def forget_after(self, step: int) -> None:
        """Drop records of later steps: the run goes on from `step` and will log them again."""
        kept = [r for r in read(self.path) if r["step"] <= step]
        self.file.close()
        temporary = self.path.with_suffix(".tmp")
        temporary.write_text("".join(json.dumps(r) + "\n" for r in kept))
        temporary.replace(self.path)
        self.file = self.path.open("a")

    def log(self, record: Record) -> None:
        self.file.write(json.dumps(record) + "\n")
        self.file.flush()

    def close(self) -> None:
        self.file.close()


class Console:
    """A progress line on a terminal; elsewhere one plain line a record."""

    def __init__(self, total: int, done: int) -> None:
        from rich.console import Console as RichConsole
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self.console = RichConsole(stderr=True)
        self.total = total
        self.progress = None
        if self.console.is_terminal:
            self.progress = Progress(
                BarColumn(24),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.description}"),
                console=self.console,
            )
            self.task = self.progress.add_task("", total=total, completed=done)
            self.progress.start()

    def log(self, record: Record) -> None:
        text = describe(record)
        if self.progress is not None:
            self.progress.update(self.task, completed=int(record["step"]), description=text)
        else:
            print(f"step {int(record['step'])}/{self.total}  {text}", file=sys.stderr, flush=True)

    def close(self) -> None:
        if self.progress is not None:
            self.progress.stop()


class Prometheus:
    """Serves the newest values on a port, as `trainer_<name>`."""

    def __init__(self, port: int, run: str) -> None:
        from prometheus_client import CollectorRegistry, Gauge, start_http_server

        self.registry = CollectorRegistry()
        self.run = run
        self._gauge = Gauge
        self._gauges: dict[str, Any] = {}
        self.server, self.thread = start_http_server(port, registry=self.registry)
        self.port: int = self.server.server_port

    def log(self, record: Record) -> None:
        for name, value in record.items():
            if name not in self._gauges:
                self._gauges[name] = self._gauge(
                    f"trainer_{name}", UNITS.get(name, name), ["run"], registry=self.registry
                )
            self._gauges[name].labels(self.run).set(value)

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


UNITS = {
    "loss": "Mean loss a learned token since the last record",
    "eval_loss": "Mean loss a learned token of the held-out rows",
    "lr": "Learning rate",
    "grad_norm": "Norm of the gradient before clipping",
    "tokens": "Tokens trained on so far, without padding",
    "tokens_per_second": "Tokens a second since the last record",
    "mfu": "Share of the card's peak throughput in use",
    "memory_gib": "Most memory in use since the last record, GiB",
    "peak_memory_gib": "Most memory that the run used, GiB: on a card its tensors, on a CPU the process",
    "planned_memory_gib": "What the plan expected of it, GiB",
    "gpu_watts": "Power of the card, W",
    "gpu_celsius": "Temperature of the card, degrees Celsius",
    "seconds_left": "Estimated seconds to the end",
    "step": "Optimizer steps done",
    "time": "When the record was made, seconds since 1970",
    "epoch": "Epochs done, with fraction",
}


def describe(record: Record) -> str:
    """A record in a few words."""
    words: list[str] = []
    for name, form in (
        ("loss", "loss {:.4f}"),
        ("eval_loss", "eval loss {:.4f}"),
        ("lr", "lr {:.2e}"),
        ("tokens_per_second", "{:.0f} tok/s"),
        ("mfu", "{:.0%} MFU"),
        ("memory_gib", "{:.1f} GiB"),
        ("peak_memory_gib", "peak {:.2f} GiB"),
        ("planned_memory_gib", "planned {:.2f} GiB"),
        ("gpu_watts", "{:.0f} W"),
        ("gpu_celsius", "{:.0f} °C"),
    ):
        if name in record:
            words.append(form.format(record[name]))
    return "  ".join(words)


def read(path: Path) -> list[dict[str, float]]:
    """All whole records of a `metrics.jsonl`; a line cut off by a crash is left out."""
    records: list[dict[str, float]] = []
    if path.exists():
        for line in path.read_text().splitlines():
            try:
                records.append(json.loads(line))
            except ValueError:
                continue
    return records


class GpuSensor:
    """Power and temperature of the first card; empty without one."""

    def __init__(self) -> None:
        self.handle: Any = None
        try:
            import pynvml

            pynvml.nvmlInit()
            self.nvml = pynvml
            self.handle = pynvml.nvmlDeviceGetHandleByIndex(0)
        except Exception:  # noqa: S110 - no driver, no card, no library: a run without sensors
            pass

    def read(self) -> dict[str, float]:
        """`gpu_watts` and `gpu_celsius`, as far as the card tells."""
        if self.handle is None:
            return {}
        out: dict[str, float] = {}
        try:
            out["gpu_watts"] = self.nvml.nvmlDeviceGetPowerUsage(self.handle) / 1000
            out["gpu_celsius"] = float(self.nvml.nvmlDeviceGetTemperature(self.handle, 0))
        except self.nvml.NVMLError:
            pass
        return out


def plot(records: list[dict[str, float]], path: Path) -> None:
    """Draw training and evaluation loss over steps as a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for name, label, style in (("loss", "training", "-"), ("eval_loss", "held out", "o-")):
        points = [(r["step"], r[name]) for r in records if name in r]
        if points:
            axes.plot([p[0] for p in points], [p[1] for p in points], style, label=label, linewidth=1.2)
    axes.set_xlabel("optimizer steps")
    axes.set_ylabel("loss a learned token")
    axes.grid(alpha=0.3)
    if axes.has_data():
        axes.legend()
    figure.savefig(path, dpi=120)
