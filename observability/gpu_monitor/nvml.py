"""NVIDIA's management library as readings: what each card does now, and which errors it reported.

    cards = Cards()
    cards.read()     -> [Reading, ...]; raises GpuUnavailable with the reason when there is no card to ask
    cards.errors()   -> [(gpu, xid), ...] since the last call

A field that a card does not support (consumer cards lack several) is None. NVML also answers with values near 2**64
for what it does not know; those are None too. After a driver error the library is opened afresh at the next read.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pynvml

UNKNOWN = 1 << 62
"""Values from here on are NVML's way to say 'not known'; no real reading is that large."""


class GpuUnavailable(Exception):
    """No GPU can be read now; the message is the reason in a few words."""


@dataclass(frozen=True, slots=True)
class Reading:
    """One card at one moment. Ratios 0 to 1, bytes, watts, degrees Celsius, hertz; None: not known."""

    gpu: str
    uuid: str
    model: str
    utilization_ratio: float | None
    memory_used_bytes: int | None
    memory_total_bytes: int | None
    power_watts: float | None
    power_limit_watts: float | None
    temperature_celsius: float | None
    sm_clock_hertz: float | None
    ecc_uncorrected_errors: int | None


class Cards:
    """All cards of this machine. `nvml` is the module to ask, for tests."""

    def __init__(self, nvml: Any = pynvml) -> None:
        self._nvml = nvml
        self._handles: list[Any] = []
        self._events: Any = None
        self._open = False

    def read(self) -> list[Reading]:
        """One reading of each card. Raises GpuUnavailable."""
        nvml = self._nvml
        try:
            if not self._open:
                self._begin()
            readings = [self._reading(index, handle) for index, handle in enumerate(self._handles)]
        except nvml.NVMLError as error:
            self.close()
            raise GpuUnavailable(str(error)) from error
        if not readings:
            self.close()
            raise GpuUnavailable("the driver knows no GPU")
        return readings

    def errors(self) -> list[tuple[str, int]]:
        """The XID errors that the driver reported since the last call: (gpu, number)."""
        found: list[tuple[str, int]] = []
        if self._events is None:
            return found
        nvml = self._nvml
        with suppress(nvml.NVMLError):  # a timeout is how NVML says that there is no further event
            while True:
                event = nvml.nvmlEventSetWait_v2(self._events, 0)
                if event.eventType & nvml.nvmlEventTypeXidCriticalError:
                    found.append((str(nvml.nvmlDeviceGetIndex(event.device)), int(event.eventData)))
        return found

    def close(self) -> None:
        """Let go of the library; the next read opens it again."""
        nvml = self._nvml
        if self._events is not None:
            with suppress(nvml.NVMLError):
                nvml.nvmlEventSetFree(self._events)
        if self._open:
            with suppress(nvml.NVMLError):
                nvml.nvmlShutdown()
        self._handles, self._events, self._open = [], None, False

    def _begin(self) -> None:
        nvml = self._nvml
        nvml.nvmlInit()
        self._open = True
        self._handles = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]
        with suppress(nvml.NVMLError):  # not every card or driver reports events
            events = nvml.nvmlEventSetCreate()
            self._events = events
            for handle in self._handles:
                nvml.nvmlDeviceRegisterEvents(handle, nvml.nvmlEventTypeXidCriticalError, events)

    def _reading(self, index: int, handle: Any) -> Reading:
        nvml = self._nvml
        memory = self._optional(nvml.nvmlDeviceGetMemoryInfo, handle)
        use = self._optional(nvml.nvmlDeviceGetUtilizationRates, handle)
        return Reading(
            gpu=str(index),
            uuid=_text(nvml.nvmlDeviceGetUUID(handle)),
            model=_text(nvml.nvmlDeviceGetName(handle)),
            utilization_ratio=None if use is None else _scaled(use.gpu, 0.01),
            memory_used_bytes=None if memory is None else _known(memory.used),
            memory_total_bytes=None if memory is None else _known(memory.total),
            power_watts=_scaled(self._optional(nvml.nvmlDeviceGetPowerUsage, handle), 0.001),
            power_limit_watts=_scaled(self._optional(nvml.nvmlDeviceGetEnforcedPowerLimit, handle), 0.001),
            temperature_celsius=_known(
                self._optional(nvml.nvmlDeviceGetTemperature, handle, nvml.NVML_TEMPERATURE_GPU)
            ),
            sm_clock_hertz=_scaled(self._optional(nvml.nvmlDeviceGetClockInfo, handle, nvml.NVML_CLOCK_SM), 1e6),
            ecc_uncorrected_errors=_known(
                self._optional(
                    nvml.nvmlDeviceGetTotalEccErrors,
                    handle,
                    nvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED,
                    nvml.NVML_AGGREGATE_ECC,
                )
            ),
        )

    def _optional(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """The answer, or None where this card does not support the question. Other errors go on."""
        nvml = self._nvml
        try:
            return function(*arguments)
        except (nvml.NVMLError_NotSupported, nvml.NVMLError_FunctionNotFound, nvml.NVMLError_NoPermission):
            return None


def _known(value: int | None) -> int | None:
    return None if value is None or value >= UNKNOWN else value


def _scaled(value: int | None, factor: float) -> float | None:
    known = _known(value)
    return None if known is None else round(known * factor, 6)


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
