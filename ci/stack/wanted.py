"""What a mode asks of the machine: ports, network, model, images, disk; values from the settings where set."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from ci.stack import images
from ci.stack.errors import UsageError

GIB = 1024**3
DISK_FIRST = 10 * GIB
DISK_OFFLINE = 6 * GIB
DISK_AGAIN = 2 * GIB
"""Bytes free beside a model: for every image, its build, metrics and logs; the same without the registry's images; and
for metrics and logs alone where the images are there, so that a stack comes back on a disk that it filled itself."""


@dataclass(frozen=True)
class Wanted:
    """What the stack about to start asks of the machine."""

    ports: Mapping[str, int] = field(default_factory=lambda: PORTS["dev"])
    """Variable that moves a port, to the port."""
    subnets: tuple[str, ...] = ("172.20.0.0/16",)
    model: str = "gemma3n:e4b"
    model_bytes: int = 8 * GIB
    """Size of the model on disk where its registry does not say; also about what it takes in memory."""
    gpu: bool | None = None
    """True: a card is asked for. None: use one if it is there."""
    offline: bool = False
    images: tuple[str, ...] = ("AGENT_LOOP_IMAGE_RUNTIME", "AGENT_LOOP_IMAGE_DEV")
    """Of ours, by the variable that names each."""
    disk: int = DISK_FIRST


PORTS = {
    "dev": {"AGENT_LOOP_PORT": 8000, "PROMETHEUS_PORT": 9090, "GRAFANA_PORT": 3000, "OLLAMA_PORT": 11434},
    "prod": {"HTTP_PORT": 80, "HTTPS_PORT": 443},
    "train": {
        "JUPYTER_PORT": 8888,
        "TENSORBOARD_PORT": 6006,
        "TRACKING_PORT": 8080,
        "TRAINING_PROMETHEUS_PORT": 9091,
        "GPU_MONITOR_PORT": 9400,
    },
}
"""The ports that a mode publishes, by the variable that moves each."""

SUBNETS = {"dev": "172.20.0.0/16", "prod": "172.20.0.0/16", "train": "172.25.0.0/16"}


def wanted_by(mode: str, gpu: str, offline: bool, settings: Mapping[str, str] = os.environ) -> Wanted:
    """What a mode asks, with the ports, subnets and model of `settings`. Raises UsageError for unknown words."""
    if mode not in PORTS:
        raise UsageError(f"No mode '{mode}'. Use one of {', '.join(PORTS)}.")
    if gpu not in ("auto", "on", "off"):
        raise UsageError(f"No --gpu '{gpu}'. Use auto, on or off.")
    variable = "TRAINING_NETWORK_SUBNET" if mode == "train" else "AGENT_NETWORK_SUBNET"
    return Wanted(
        ports={name: port(settings, name, default) for name, default in PORTS[mode].items()},
        subnets=(subnet(settings, variable, SUBNETS[mode]),),
        model=settings.get("AGENT_LOOP_MODEL") or Wanted.model,  # empty is not set, as in the compose files
        gpu={"auto": None, "on": True, "off": False}[gpu],
        offline=offline,
        images=tuple(image.variable for image in images.OF_MODE[mode]),
        disk=DISK_OFFLINE if offline and mode != "train" else DISK_FIRST,
    )


def port(settings: Mapping[str, str], variable: str, default: int) -> int:
    """A port. Raises UsageError for what is none."""
    text = settings.get(variable) or str(default)
    if not text.isdigit() or not 0 < int(text) < 65536:
        raise UsageError(f"'{text}' is no port, in {variable}. Use a number from 1 to 65535.")
    return int(text)


def subnet(settings: Mapping[str, str], variable: str, default: str) -> str:
    """A network. Raises UsageError for what is none."""
    text = settings.get(variable) or default
    try:
        return str(ipaddress.IPv4Network(text))
    except ValueError as error:
        raise UsageError(f"'{text}' is no IPv4 network ({error}), in {variable}. Use one such as {default}.") from error
