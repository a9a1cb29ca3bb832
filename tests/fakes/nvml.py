"""A machine's cards as `pynvml` would tell of them: the functions that the GPU monitor asks, errors included.

    nvml = FakeNvml([Card()])
    nvml.cards[0].temperature = 91; nvml.broken = "GPU is lost"; nvml.xids.append((0, 79))

The error classes and constants are pynvml's own.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pynvml


@dataclass
class Card:
    """What one card answers; a field that is None is not supported."""

    name: str = "NVIDIA GeForce RTX 4090"
    uuid: str = "GPU-0a1b"
    utilization: int | None = 73
    used: int = 8 << 30
    total: int = 24 << 30
    power: int | None = 310_500
    limit: int | None = 450_000
    temperature: int | None = 64
    clock: int | None = 2520
    ecc: int | None = None


@dataclass
class FakeNvml:
    """Stands in for the module `pynvml`."""

    cards: list[Card] = field(default_factory=lambda: [Card()])
    missing: bool = False
    """No driver on this machine."""
    broken: int = 0
    """NVML error code that every question about a card gets."""
    xids: list[tuple[int, int]] = field(default_factory=list)
    opened: int = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(pynvml, name)  # error classes and constants

    def nvmlInit(self) -> None:
        if self.missing:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)
        self.opened += 1

    def nvmlShutdown(self) -> None:
        self.opened -= 1

    def nvmlDeviceGetCount(self) -> int:
        return len(self.cards)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return index

    def nvmlDeviceGetIndex(self, handle: int) -> int:
        return handle

    def nvmlDeviceGetName(self, handle: int) -> str:
        return self._card(handle).name

    def nvmlDeviceGetUUID(self, handle: int) -> bytes:
        return self._card(handle).uuid.encode()  # older releases answer in bytes

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> SimpleNamespace:
        card = self._card(handle)
        return SimpleNamespace(used=card.used, total=card.total, free=card.total - card.used)

    def nvmlDeviceGetUtilizationRates(self, handle: int) -> SimpleNamespace:
        return SimpleNamespace(gpu=self._value(handle, "utilization"))

    def nvmlDeviceGetPowerUsage(self, handle: int) -> int:
        return self._value(handle, "power")

    def nvmlDeviceGetEnforcedPowerLimit(self, handle: int) -> int:
        return self._value(handle, "limit")

    def nvmlDeviceGetTemperature(self, handle: int, sensor: int) -> int:
        assert sensor == pynvml.NVML_TEMPERATURE_GPU
        return self._value(handle, "temperature")

    def nvmlDeviceGetClockInfo(self, handle: int, clock: int) -> int:
        assert clock == pynvml.NVML_CLOCK_SM
        return self._value(handle, "clock")

    def nvmlDeviceGetTotalEccErrors(self, handle: int, kind: int, counter: int) -> int:
        assert (kind, counter) == (pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, pynvml.NVML_AGGREGATE_ECC)
        return self._value(handle, "ecc")

    def nvmlEventSetCreate(self) -> object:
        return object()

    def nvmlEventSetFree(self, events: object) -> None:
        return

    def nvmlDeviceRegisterEvents(self, handle: int, kinds: int, events: object) -> None:
        assert kinds == pynvml.nvmlEventTypeXidCriticalError

    def nvmlEventSetWait_v2(self, events: object, timeout: int) -> SimpleNamespace:
        assert timeout == 0, "the sampler must not wait for events"
        if not self.xids:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_TIMEOUT)
        handle, xid = self.xids.pop(0)
        return SimpleNamespace(device=handle, eventType=pynvml.nvmlEventTypeXidCriticalError, eventData=xid)

    def _card(self, handle: int) -> Card:
        assert self.opened > 0, "asked before nvmlInit"
        if self.broken:
            raise pynvml.NVMLError(self.broken)
        return self.cards[handle]

    def _value(self, handle: int, field_name: str) -> int:
        value = getattr(self._card(handle), field_name)
        if value is None:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
        return value
