"""How fast a run is and how much memory it takes, beside what its plan said.

meter = Meter(plan, device, processes=1, total=120)
meter.begin(); ...one step...; line = meter.end(left)      the device is waited for at one step only
meter.record(tokens, steps, left)                          figures since the last record
meter.peak(), meter.planned                                bytes, at the end
"""

from __future__ import annotations

import resource
import time

import torch

from .cards import GIB, peak_tflops
from .plan import RESERVE, Plan


class Meter:
    """Clock and memory of one process of a run that takes `total` steps."""

    def __init__(self, plan: Plan, device: torch.device, *, processes: int, total: int) -> None:
        self._plan, self._device, self._processes = plan, device, processes
        self._planned_step = plan.seconds / total if plan.seconds and processes == 1 else None
        self._speed = peak_tflops(torch.cuda.get_device_name()) if device.type == "cuda" else None
        self._warm_up = 1 if plan.compile else 0
        self._done, self._began, self._most = 0, 0.0, 0
        self.planned = plan.total - RESERVE
        """Bytes that the run's own tensors were to take: without the context and the allocator's slack."""
        self.restart(0)

    def restart(self, tokens: int) -> None:
        """Measure speed from here, with `tokens` done: after a resume, a roll-back, an evaluation."""
        self._clock, self._tokens = time.monotonic(), tokens

    def begin(self) -> None:
        """A step begins."""
        if self._done == self._warm_up:
            self._wait()
            self._began = time.monotonic()

    def end(self, left: int) -> tuple[str, float] | None:
        """A step is over, `left` are to come. Once, after the step to calibrate on: a line, and seconds to the end.

        That is the first of this process, or the second where the first one compiles.
        """
        self._done += 1
        if self._done != self._warm_up + 1 or not left:
            return None
        self._wait()
        seconds = time.monotonic() - self._began
        planned = f" (planned {self._planned_step:.2f} s)" if self._planned_step else ""
        line = f"A step takes {seconds:.2f} s{planned}: about {_time(seconds * left)} for the {left} left"
        return f"{line}, evaluations and checkpoints apart.", seconds * left

    def record(self, tokens: int, steps: int, left: int) -> dict[str, float]:
        """Speed since the last record, given all tokens so far, the `steps` since then and those to come; memory, MFU.

        `seconds` are those since the last record.
        """
        now = time.monotonic()
        seconds, fresh = now - self._clock, tokens - self._tokens
        self._clock, self._tokens = now, tokens
        rate = fresh / max(seconds, 1e-9)
        found = {
            "seconds": seconds,
            "tokens_per_second": round(rate, 1),
            "seconds_left": round(left * seconds / steps, 1),
        }
        if self._device.type == "cuda":
            found["memory_gib"] = round(self._look() / GIB, 3)
        if self._speed:
            found["mfu"] = rate * self._plan.flops_per_token / (self._speed * 1e12 * self._processes)
        return found

    def peak(self) -> int | None:
        """Most bytes in use by this process: tensors on the card, or on a CPU all of it. None if it did no step."""
        if not self._done:
            return None
        if self._device.type == "cuda":
            self._look()
            return self._most
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

    def compare(self, peak: int) -> str:
        """The measured peak beside the plan, in words."""
        what = "" if self._device.type == "cuda" else ", the whole process with its libraries"
        return f"Memory: {peak / GIB:.2f} GiB at most{what}; {self.planned / GIB:.2f} GiB planned for tensors."

    def _look(self) -> int:
        """The card's peak since the last look."""
        found = torch.cuda.max_memory_allocated(self._device)
        torch.cuda.reset_peak_memory_stats(self._device)
        self._most = max(self._most, found)
        return found

    def _wait(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
