"""Time, memory and launches of steps, on a card by its own clock."""

from __future__ import annotations

import resource
import time
from typing import Any

import torch

from benchmarks.training.tensors import Tensors

LAUNCHES = ("cudaLaunchKernel", "cudaLaunchKernelExC", "cuLaunchKernel", "cuLaunchKernelEx", "cudaGraphLaunch")


class Clock:
    """`begin` and `end` around each step. On a card nothing waits in between; one more step at the end is looked into.

    The first `warmup` steps count for compilation alone; peaks are those of the steps after them.
    """

    def __init__(self, device: str, warmup: int, steps: int) -> None:
        self._cuda = device == "cuda"
        self._warmup, self._steps = warmup, steps
        self._marks: list[tuple[Any, Any]] = []
        self._used: list[float] = []
        self._look: Any = None
        self.launches: int | None = None
        """Kernels that a step launches; None on a CPU."""
        self.tensors: int | None = None
        """Bytes of results that a step holds at once, weights and optimizer apart; None on a card, which counts all."""

    @property
    def total(self) -> int:
        """Steps to do: warm-up, measured, and the one that is looked into."""
        return self._warmup + self._steps + 1

    def begin(self) -> None:
        """A step begins."""
        number = len(self._marks)
        if self._cuda and number == self._warmup:
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
        if number == self._warmup + self._steps:
            activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
            self._look = torch.profiler.profile(activities=activities) if self._cuda else Tensors()
            self._resident = _resident()
            self._look.__enter__()
        self._start, self._processor = self._mark(), time.process_time()

    def end(self) -> None:
        """A step is over."""
        self._used.append(time.process_time() - self._processor)
        self._marks.append((self._start, self._mark()))
        if self._look is not None:
            if self._cuda:
                torch.cuda.synchronize()
            self._look.__exit__(None, None, None)
            if self._cuda:
                self.launches = sum(event.count for event in self._look.key_averages() if event.key in LAUNCHES)
            else:
                self.tensors = self._look.peak

    def seconds(self) -> list[float]:
        """Of each step, warm-up first; without the one that is looked into."""
        if self._cuda:
            torch.cuda.synchronize()
            found = [start.elapsed_time(end) / 1000 for start, end in self._marks]
        else:
            found = [end - start for start, end in self._marks]
        return found[: self._warmup + self._steps]

    def processor(self) -> list[float]:
        """The process's own time of each of these steps."""
        return self._used[: self._warmup + self._steps]

    def peaks(self) -> tuple[int, int | None]:
        """Bytes: in use and, on a card, taken from it. On a CPU the process's resident memory."""
        if self._cuda:
            return torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()
        return self._resident, None

    def _mark(self) -> Any:
        if not self._cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event


def _resident() -> int:
    """Bytes of memory that this process had at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def ceiling(device: str) -> float:
    """Teraflops of a large matrix product here and now: what the card gives at most, by its clock and heat."""
    size, dtype = (8192, torch.bfloat16) if device == "cuda" else (512, torch.float32)
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    clock = Clock(device, warmup=3, steps=10)
    for _ in range(clock.total):
        clock.begin()
        for _ in range(10):
            torch.mm(a, b)
        clock.end()
    return 10 * 2 * size**3 / min(clock.seconds()[3:]) / 1e12
