"""Every service of every mode meets the baseline, or stands in the table of exceptions with its reason."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path, PurePath
from typing import Any

import pytest
import yaml

from ci.stack import mounted
from ci.stack.project import COMPOSE, ROOT

pytestmark = pytest.mark.containers

DIGEST = "sha256:" + "a" * 64
OURS = {
    f"AGENT_LOOP_IMAGE_{name}": f"agent-loop/{name.lower()}@{DIGEST}"
    for name in ("RUNTIME", "DEV", "OPS", "TRAINING", "PROMETHEUS", "NGINX", "ALERTMANAGER", "NODE_EXPORTER", "CANARY")
}
DEPLOYED = {"AGENT_LOOP_MODEL": "mine", "AGENT_LOOP_SERVED_DIGEST": DIGEST}
MODES = {
    "dev": ["compose.yaml", "compose.dev.yaml"],
    "dev offline": ["compose.yaml", "compose.dev.yaml", "compose.offline.yaml"],
    "prod": ["compose.yaml", "compose.prod.yaml"],
    "prod offline": ["compose.yaml", "compose.prod.yaml", "compose.offline.yaml", "compose.prod.offline.yaml"],
    "train": ["compose.train.yaml"],
    "train offline": ["compose.train.yaml", "compose.train.offline.yaml"],
    "prod served": ["compose.yaml", "compose.prod.yaml", "compose.served.yaml"],
    "dev logs": ["compose.yaml", "compose.dev.yaml", "compose.logs.yaml"],
    "prod logs": ["compose.yaml", "compose.prod.yaml", "compose.logs.yaml"],
    "dev backup": ["compose.yaml", "compose.dev.yaml", "compose.backup.yaml"],
}

EXCEPTIONS: dict[tuple[str, str], str] = {
    ("ollama-owner", "user"): "gives a fresh volume to the user that Ollama runs as, once, with no network",
    ("ollama-owner", "capabilities"): "changing owners needs CHOWN, FOWNER and DAC_OVERRIDE, and nothing else",
    ("ollama-owner", "restart"): "a job: it ends",
    ("ollama-owner", "health"): "a job: it ends",
    ("ollama-pull", "restart"): "a job: it ends",
    ("ollama-pull", "health"): "a job: it ends",
    ("owner", "restart"): "a job: it ends",
    ("owner", "health"): "a job: it ends",
    ("trainer", "restart"): "a job: it ends",
    ("trainer", "health"): "a job: it ends, and says how",
    ("trainer-gpu", "restart"): "a job: it ends",
    ("trainer-gpu", "health"): "a job: it ends, and says how",
    (
        "alloy",
        "user",
    ): "reads the engine's log files, which are root's, through a read-only mount; it has no capability",
    ("cadvisor", "user"): "reads cgroups and the engine's files of every container, all root's",
    (
        "cadvisor",
        "no engine socket",
    ): "the engine alone knows which container a cgroup is, and its socket is not read-only",
    ("wandb", "read-only"): "its image writes all over its root; behind a profile, for those who have a licence",
}
PUBLISHED = {
    "dev": {("agent", "127.0.0.1", 8000), ("prometheus", "127.0.0.1", 9090), ("grafana", "127.0.0.1", 3000)}
    | {("ollama", "127.0.0.1", 11434), ("ollama-gpu", "127.0.0.1", 11434)},
    "prod": {("nginx", "", 8080), ("nginx", "", 8443)},
    "train": {("jupyter", "127.0.0.1", 8888), ("tensorboard", "127.0.0.1", 6006), ("tracking", "127.0.0.1", 8080)}
    | {("wandb", "127.0.0.1", 8080), ("gpu-monitor", "127.0.0.1", 9400), ("prometheus", "127.0.0.1", 9090)},
}


@cache
def config(mode: str) -> dict[str, Any]:
    """The mode's whole configuration, every profile, as compose resolves it."""
    files = [word for name in MODES[mode] for word in ("--file", str(COMPOSE / name))]
    done = subprocess.run(
        ["docker", "compose", *files, "--profile", "*", "config", "--format", "json"],
        env={**os.environ, **OURS, **DEPLOYED, "AGENT_LOOP_STATE": "/nowhere"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def reaches_engine(service: dict[str, Any], source: str) -> bool:
    """Whether a mount brings the engine's socket along, itself or in a folder, to a user who may use it."""
    socket = PurePath("/var/run/docker.sock")
    root = service["user"].startswith("0:")
    return source.endswith("docker.sock") or (root and (PurePath(source) in (*socket.parents, PurePath("/run"))))


CHECKS = {
    "pinned": lambda s: re.fullmatch(r".+@sha256:[0-9a-f]{64}", s["image"]),
    "user": lambda s: re.fullmatch(r"[1-9]\d*:\d+", s.get("user", "")),
    "read-only": lambda s: s.get("read_only") is True,
    "capabilities": lambda s: s.get("cap_drop") == ["ALL"] and not s.get("cap_add") and not s.get("privileged"),
    "no new privileges": lambda s: "no-new-privileges:true" in s.get("security_opt", []),
    "init": lambda s: s.get("init") is True,
    "limits": lambda s: {"cpus", "memory", "pids"} <= set(s["deploy"]["resources"]["limits"]),
    "restart": lambda s: s.get("restart") == "unless-stopped",
    "grace": lambda s: s.get("stop_grace_period") in ("1m0s", "2m0s"),
    "log rotation": lambda s: (
        s["logging"]["driver"] in ("local", "json-file") and {"max-size", "max-file"} <= set(s["logging"]["options"])
    ),
    "health": lambda s: {"test", "start_period"} <= set(s.get("healthcheck", {})),
    "no fixed name": lambda s: "container_name" not in s,
    "no secret in the environment": lambda s: (
        not any(
            re.search(r"PASSWORD|SECRET|TOKEN|API_KEY", name) and not name.endswith("_FILE")
            for name in s.get("environment", {})
        )
    ),
    "no engine socket": lambda s: not any(reaches_engine(s, v.get("source", "")) for v in s.get("volumes", [])),
}


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("mode", MODES)
def test_every_service_meets_the_baseline(mode: str, check: str) -> None:
    """No service falls short of an item, but for the exceptions that say why."""
    short = [
        name
        for name, service in config(mode)["services"].items()
        if (name, check) not in EXCEPTIONS and not CHECKS[check](service)
    ]
    assert short == []


def test_every_exception_is_one() -> None:
    """An exception whose service meets the item, or does not exist, is stale."""
    services = {name: service for mode in MODES for name, service in config(mode)["services"].items()}
    stale = [key for key in EXCEPTIONS if key[0] not in services or CHECKS[key[1]](services[key[0]])]
    assert stale == []


@pytest.mark.parametrize("mode", MODES)
def test_a_changed_file_starts_its_program_again(mode: str) -> None:
    """Each mounted file of this tree is hashed into its service's definition, or looked after by its program itself."""
    here = ROOT / "observability"
    for name, service in config(mode)["services"].items():
        sources = {Path(v["source"]).relative_to(here) for v in service.get("volumes", []) if str(here) in v["source"]}
        read = {path for path in sources if path.name != "dashboards"}
        assert all(any(path.is_relative_to(known) for known in mounted.READ[name]) for path in read), name
        assert not read or "agent-loop.read" in service["labels"], name


@pytest.mark.parametrize("mode", PUBLISHED)
def test_only_the_meant_ports_are_published(mode: str) -> None:
    """Development publishes on the loopback address, production nothing but the proxy."""
    published = {
        (name, port.get("host_ip", ""), port["target"])
        for name, service in config(mode)["services"].items()
        for port in service.get("ports", [])
    }
    assert published == PUBLISHED[mode]


@pytest.mark.parametrize("mode", ["dev", "prod"])
def test_logs_to_search_add_two_services_and_what_grafana_asks_them(mode: str) -> None:
    """Loki and Alloy come with the profile alone, publish nothing, and Grafana learns of Loki only then."""
    plain, searched = config(mode), config(f"{mode} logs")
    assert set(searched["services"]) - set(plain["services"]) == {"loki", "alloy"}
    assert all(searched["services"][name]["profiles"] == ["logs"] for name in ("loki", "alloy"))
    assert not any(searched["services"][name].get("ports") for name in ("loki", "alloy"))

    def mounted(service: str) -> tuple[set[str], set[str]]:
        """Places in the container, without logs and with them."""
        before, after = ({v["target"] for v in f["services"][service]["volumes"]} for f in (plain, searched))
        return before, after

    before, after = mounted("grafana")
    provisioned = "/etc/grafana/provisioning"
    assert after - before == {
        f"{provisioned}/datasources/loki.yml",
        f"{provisioned}/dashboards/logs.yml",
        "/etc/grafana/logs",
    }
    assert searched["services"]["agent"]["environment"].get("AGENT_LOOP_LOG_FORMAT", "json") == "json"
    nested = [one for one in after for other in after if one.startswith(f"{other}/")]
    assert nested == [], "the engine cannot make a place for a mount inside of one that is read-only"
    before, after = mounted("prometheus")
    assert after - before == {"/etc/prometheus/targets/logs.yml"}


def test_prometheus_looks_after_what_searches_logs() -> None:
    """Its further targets are the two services, at the ports that they are asked for their health."""
    groups = yaml.safe_load((ROOT / "observability" / "prometheus" / "targets" / "logs.yml").read_text())
    assert [group["targets"] for group in groups] == [["loki:3100"], ["alloy:12345"]]
    services = config("prod logs")["services"]
    assert "--server.http.listen-addr=0.0.0.0:12345" in services["alloy"]["command"]
    settings = yaml.safe_load((ROOT / "observability" / "logs" / "loki.yml").read_text())
    assert settings["server"]["http_listen_port"] == 3100
    assert all("agent-network" in services[name]["networks"] for name in ("prometheus", "loki", "alloy"))


def test_an_ollama_of_ones_own_is_asked_where_one_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """As docs/install.md says for machines whose containers reach no card."""
    own = "http://host.docker.internal:11434"
    monkeypatch.setenv("AGENT_LOOP_OLLAMA_URL", own)
    named = config.__wrapped__("prod")["services"]
    assert named["agent"]["environment"]["AGENT_LOOP_OLLAMA_URL"] == own
    assert named["backup"]["environment"]["OLLAMA_URL"] == own
    monkeypatch.delenv("AGENT_LOOP_OLLAMA_URL")
    services = config.__wrapped__("prod")["services"]
    assert services["agent"]["environment"]["AGENT_LOOP_OLLAMA_URL"] == "http://ollama:11434"


@pytest.mark.parametrize("mode", ["dev", "prod", "prod logs"])
def test_a_collector_can_tell_the_services_apart(mode: str) -> None:
    """Every service's log lines carry project and service, which is all that the collector goes by."""
    wanted = "com.docker.compose.project,com.docker.compose.service"
    unnamed = [n for n, s in config(mode)["services"].items() if s["logging"]["options"].get("labels") != wanted]
    assert unnamed == []


def test_the_model_server_cannot_reach_out_in_production() -> None:
    """Ollama sits on the internal network alone; only the pull job has a way out, and no way in."""
    whole = config("prod")
    assert whole["networks"]["backend"]["internal"] is True
    assert set(whole["services"]["ollama"]["networks"]) == {"backend"}
    assert set(whole["services"]["ollama-pull"]["networks"]) == {"egress"}


def test_networks_and_volumes_have_the_names_asked_for() -> None:
    """The subnets and the volumes that documentation and backups speak of."""
    serving, training = config("prod"), config("train")
    assert serving["networks"]["agent-network"]["ipam"]["config"] == [{"subnet": "172.20.0.0/16"}]
    assert training["networks"]["training-network"]["ipam"]["config"] == [{"subnet": "172.25.0.0/16"}]
    assert {"ollama_data", "prometheus_data", "grafana_data"} <= set(serving["volumes"])
    wanted = {"models_cache", "models_gguf", "checkpoints", "logs", "backup"}
    assert {f"training_{name}" for name in wanted} <= set(training["volumes"])


def test_training_is_isolated() -> None:
    """User 1000, at most 20 GB of memory, data read-only, a card where one is asked for."""
    trainer = config("train")["services"]["trainer-gpu"]
    assert trainer["user"] == "1000:1000"
    assert int(trainer["deploy"]["resources"]["limits"]["memory"]) == 20 * 1024**3
    assert trainer["deploy"]["resources"]["reservations"]["devices"][0]["capabilities"] == ["gpu"]
    assert [v["read_only"] for v in trainer["volumes"] if v["target"] == "/data"] == [True]


@pytest.mark.parametrize("mode", ["dev", "prod", "train"])
def test_nothing_starts_without_what_the_wrapper_makes(mode: str) -> None:
    """A bare `docker compose up` says which command makes images and secrets, and starts nothing."""
    files = [word for name in MODES[mode] for word in ("--file", str(COMPOSE / name))]
    clean = {k: v for k, v in os.environ.items() if not k.startswith("AGENT_LOOP_")}
    done = subprocess.run(["docker", "compose", *files, "config"], env=clean, capture_output=True, text=True)
    assert done.returncode != 0
    assert "run 'agent-loop up" in done.stderr


@pytest.mark.parametrize("mode", MODES)
def test_a_checkout_may_lie_anywhere(mode: str, tmp_path: Path) -> None:
    """Spaces, a colon or a dollar in its path, and so in the state folder's, are part of the path and nothing else."""
    place = tmp_path / "a: $b c"
    shutil.copytree(COMPOSE, place / "ci" / "stack" / "compose")
    files = [word for name in MODES[mode] for word in ("--file", str(place / "ci" / "stack" / "compose" / name))]
    done = subprocess.run(
        ["docker", "compose", *files, "--profile", "*", "config", "--format", "json"],
        env={**os.environ, **OURS, **DEPLOYED, "AGENT_LOOP_STATE": str(place / "state")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    here, there = json.dumps(config(mode)["services"]), done.stdout.replace("$$", "$").replace(str(place), str(ROOT))
    assert json.loads(there)["services"] == json.loads(here.replace("$$", "$").replace("/nowhere", f"{ROOT}/state"))
