"""`make bench-service`: what the service costs, beside a raw relay and LiteLLM's proxy, in one run on one core.

    python -m benchmarks.service [relay gate proxy memory abort]     default: all

Servers run on one core, the model server and the clients on the other. Costs are the server's own processor time
(from /proc), which other work on the machine hardly changes; rates over the wall clock are told beside it. Prints one
JSON object a line; the last one holds the ratios and whether each goal is met. Exit status 1 if one is not.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.service.servers import CLIENT_CORE, HERE, TICK, Server, get, install_litellm, running

CLIENTS = (1, 16, 64, 256)
GOALS: dict[str, tuple[str, float]] = {
    "relay_ratio": (">=", 0.60),
    "memory_growth": ("<=", 0.05),
    "abort_p99_seconds": ("<=", 0.25),
}


def load(server: Server, **order: Any) -> dict[str, Any]:
    """What the clients saw, with the server's processor time meanwhile as `cpu`."""
    order = {"url": f"{server.url}/v1", "kind": "stream", "key": "sk-bench", **order}
    before = server.seconds()
    done = subprocess.run(
        ["taskset", "-c", CLIENT_CORE, sys.executable, str(HERE / "clients.py"), json.dumps(order)],
        capture_output=True,
        text=True,
        timeout=550,
    )
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    seen: dict[str, Any] = json.loads(done.stdout)
    return {**seen, "cpu": server.seconds() - before}


def tell(part: str, **figures: Any) -> None:
    """One line of the report."""
    short = {key: float(f"{value:.4g}") if isinstance(value, float) else value for key, value in figures.items()}
    print(json.dumps({"part": part, **short}), flush=True)


def quantile(values: list[float], share: float) -> float:
    """Nearest rank; 0 for none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


def relay(ratios: dict[str, float]) -> None:
    """Parsed, counted and written chunks against bytes: 40 streams of 200 chunks, one each 10 ms; three rounds."""
    costs: dict[str, list[float]] = {"relay": [], "service": []}
    with (
        running("upstream") as upstream,
        running("relay", upstream.url) as raw,
        running("service", upstream.url) as ours,
    ):
        for server in (raw, ours):
            load(server, clients=40, requests=40, model="c20-p0")
        for _ in range(3):
            for name, server in (("relay", raw), ("service", ours)):
                seen = load(server, clients=40, requests=80, model="c200-p10")
                assert seen["chunks"] == 80 * 200, seen["chunks"]
                costs[name].append(seen["cpu"] / seen["chunks"])
    raw_cost, our_cost = (statistics.median(costs[name]) for name in ("relay", "service"))
    ratios["relay_ratio"] = raw_cost / our_cost
    tell(
        "relay",
        raw_chunks_a_second_of_core=1 / raw_cost,
        service_chunks_a_second_of_core=1 / our_cost,
        ratio=raw_cost / our_cost,
    )


def gate(ratios: dict[str, float]) -> None:
    """A semaphore of 16 in front of httpx, 600 requests at a time: what the admission gate is for."""
    rates: dict[str, float] = {}
    with running("upstream") as upstream:
        for name, places in (("none", "0"), ("semaphore of 16", "16")):
            with running("relay", upstream.url, GATE=places) as server:
                load(server, kind="whole", clients=16, requests=200, model="c20-p0")
                seen = load(server, kind="whole", clients=600, requests=2400, model="c20-p0")
                rates[name] = seen["answers"] / seen["cpu"]
                tell(
                    "gate",
                    gate=name,
                    answers=seen["answers"],
                    broken=seen["broken"],
                    answers_a_second_of_core=rates[name],
                    p99_seconds=quantile(seen["took"], 0.99),
                )
    ratios["gate_speedup"] = rates["semaphore of 16"] / rates["none"]


def proxy(ratios: dict[str, float]) -> None:
    """Requests a second, added time to the first chunk and memory, beside LiteLLM's proxy on the same model server."""
    names = ["direct", "service", *(["litellm"] if install_litellm() else [])]
    found: dict[str, dict[str, float]] = {}
    with running("upstream") as upstream:
        for name in names:
            found[name] = _proxied(name, upstream)
    direct = found.pop("direct")
    for name, figures in found.items():
        figures["added_first_chunk"] = figures["first_chunk"] - direct["first_chunk"]
        tell("proxy", server=name, **figures)
    if "litellm" in found:
        ours, theirs = found["service"], found["litellm"]
        ratios["memory_of_litellm"] = ours["memory_mb"] / theirs["memory_mb"]
        ratios["added_first_chunk_of_litellm"] = ours["added_first_chunk"] / theirs["added_first_chunk"]
        for clients in CLIENTS:
            key = f"answers_a_second_{clients}"
            ratios[f"{key}_of_litellm"] = ours[key] / theirs[key]


def _proxied(name: str, upstream: Server) -> dict[str, float]:
    figures: dict[str, float] = {}

    def measure(server: Server) -> None:
        load(server, kind="whole", clients=16, requests=100, model="c20-p0")
        seen = load(server, clients=1, requests=60, model="c20-p0")
        figures["first_chunk"] = statistics.median(seen["first"])
        for clients in CLIENTS:
            requests = {1: 150, 16: 400, 64: 600, 256: 768}[clients]
            seen = load(server, kind="whole", clients=clients, requests=requests, model="c20-p0")
            figures[f"answers_a_second_{clients}"] = seen["answers"] / seen["wall"]
            figures[f"answers_a_second_of_core_{clients}"] = seen["answers"] / max(seen["cpu"], 1 / TICK)
            figures[f"broken_{clients}"] = seen["broken"]
        figures["memory_mb"] = server.memory() / 1e6

    if name == "direct":
        measure(upstream)
    else:
        with running(name, upstream.url) as server:
            measure(server)
    return figures


def memory(ratios: dict[str, float]) -> None:
    """Resident memory over 10,000 streams that their clients leave, in five rounds of 2,000, by two processes."""
    with running("upstream") as upstream, running("service", upstream.url) as server:
        sizes: list[int] = []
        for _ in range(6):
            orders = [
                json.dumps(
                    {
                        "url": f"{server.url}/v1",
                        "kind": "abort",
                        "clients": 50,
                        "requests": 1000,
                        "model": "c20000-p10",
                        "reset": reset,
                    }
                )
                for reset in (False, True)
            ]
            command = ["taskset", "-c", CLIENT_CORE, sys.executable, str(HERE / "clients.py")]
            clients = [subprocess.Popen([*command, order], stdout=subprocess.DEVNULL) for order in orders]
            assert all(client.wait(500) == 0 for client in clients)
            _until(lambda: get(f"{upstream.url}/stats")["open"] == 0)
            sizes.append(server.memory())
        files = len(list(Path(f"/proc/{server.process.pid}/fd").iterdir()))
        # The first round fills pools and caches; growth is over the 10,000 after it.
        ratios["memory_growth"] = sizes[-1] / sizes[0] - 1
        tell("memory", megabytes=[round(size / 1e6, 1) for size in sizes], growth=ratios["memory_growth"], files=files)


def abort(ratios: dict[str, float]) -> None:
    """From the client's close to the model server seeing it, one stream at a time."""
    with running("upstream") as upstream, running("service", upstream.url) as server:
        waits: list[float] = []
        for _ in range(100):
            before = get(f"{upstream.url}/stats")["aborted"]
            seen = load(server, kind="abort", clients=1, requests=1, model="c20000-p10")
            _until(lambda before=before: get(f"{upstream.url}/stats")["aborted"] > before)
            waits.append(get(f"{upstream.url}/stats")["aborted_at"][-1] - seen["left"][0])
    ratios["abort_p99_seconds"] = quantile(waits, 0.99)
    tell("abort", p50_seconds=quantile(waits, 0.5), p99_seconds=quantile(waits, 0.99), times=len(waits))


def _until(condition: Callable[..., bool], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit("The model server still has open streams: aborts are lost.")
        time.sleep(0.02)


PARTS: dict[str, Callable[[dict[str, float]], None]] = {
    "relay": relay,
    "gate": gate,
    "proxy": proxy,
    "memory": memory,
    "abort": abort,
}


def main(words: list[str]) -> int:
    """Run the parts; exit status 1 if a goal is missed, 2 for a part that is none."""
    unknown = [word for word in words if word not in PARTS]
    if unknown:
        print(f"No such part: {unknown[0]}. Use {', '.join(PARTS)}.", file=sys.stderr)
        return 2
    ratios: dict[str, float] = {}
    for word in words or PARTS:
        PARTS[word](ratios)
    missed = [
        name
        for name, (way, goal) in GOALS.items()
        if name in ratios and not (ratios[name] >= goal if way == ">=" else ratios[name] <= goal)
    ]
    tell("goals", **ratios, missed=missed)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
