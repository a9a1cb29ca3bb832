"""One stack is one set of files, one memory of what was started, one environment."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ci.stack import container_engine, models, mounted, project, up
from ci.stack.errors import UsageError
from ci.stack.project import Project
from ci.stack.up import Context
from ci.stack.wanted import DISK_FIRST, PORTS, Wanted, wanted_by

NAMES = st.text("ABCDEFGHIJKLMNOPQRSTUVWXYZ_", min_size=1, max_size=12)
VALUES = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), max_size=30)


@pytest.mark.parametrize("mode", project.MODES)
@pytest.mark.parametrize("offline", [False, True])
def test_every_file_of_every_mode_exists(mode: str, offline: bool, tmp_path: Path) -> None:
    """No mode names a compose file that is not there."""
    files = Project(mode, offline, state=tmp_path).files
    assert files
    assert [path for path in files if not path.is_file()] == []


def test_an_unknown_mode_is_named() -> None:
    """The word and the words that there are."""
    with pytest.raises(UsageError, match=r"No mode 'staging'\. Use one of dev, prod, train"):
        Project("staging", state=Path("/nowhere"))


@pytest.mark.parametrize("stack", [("prod", True, False), ("dev", False, True), ("train", False, False)])
def test_down_speaks_of_what_up_started(stack: tuple[str, bool, bool], tmp_path: Path) -> None:
    """Mode, offline and card are remembered, and the training stack does not overwrite the serving one."""
    started = Project(*stack, state=tmp_path)
    project.remember(Project("dev", state=tmp_path))
    project.remember(started)
    assert project.remembered(tmp_path, train=stack[0] == "train") == started
    if stack[0] == "train":
        assert project.remembered(tmp_path) == Project("dev", state=tmp_path)


def test_logs_to_search_are_remembered(tmp_path: Path) -> None:
    """`up --logs` takes the overlay and its profile, and `down` ends what they started; offline there are none."""
    started = Project("prod", logs=True, state=tmp_path)
    project.remember(started)
    assert project.remembered(tmp_path) == started
    assert "compose.logs.yaml" in [path.name for path in started.files]
    assert started.profiles == ["cpu", "logs"]
    with pytest.raises(UsageError, match="only as registry images"):
        Project("prod", offline=True, logs=True, state=tmp_path)


def test_the_environment_wins_over_what_was_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A person's variable beats a model chosen by command, which beats the file of settings."""
    (tmp_path / "settings.env").write_text("AGENT_LOOP_MODEL=gemma3:27b\n")
    assert Project(state=tmp_path).environment()["AGENT_LOOP_MODEL"] == "gemma3:27b"
    project.remember_model(tmp_path, "gemma3:1b")
    assert Project(state=tmp_path).environment()["AGENT_LOOP_MODEL"] == "gemma3:1b"
    monkeypatch.setenv("AGENT_LOOP_MODEL", "gemma3:4b")
    assert Project(state=tmp_path).environment()["AGENT_LOOP_MODEL"] == "gemma3:4b"


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("COMPOSE_PROJECT_NAME", "theirs"),
        ("COMPOSE_PROFILES", "init,cpu"),
        ("COMPOSE_FILE", "theirs.yaml"),
        ("COMPOSE_ENV_FILES", "theirs.env"),
        ("DOCKER_DEFAULT_PLATFORM", "linux/s390x"),
    ],
)
def test_variables_for_a_persons_other_project_change_nothing(
    variable: str, value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a shell sets for compose in general, or a `.env` where the person stands, is not for this project."""
    for image in ("AGENT_LOOP_IMAGE_RUNTIME", "AGENT_LOOP_IMAGE_DEV", "AGENT_LOOP_IMAGE_PROMETHEUS"):
        monkeypatch.setenv(image, "agent-loop/to-be-built")
    stack = Project(offline=True, state=tmp_path)
    before = stack.compose("config", capture=True).stdout
    monkeypatch.setenv(variable, value)
    (tmp_path / ".env").write_text(f"{variable}={value}\nAGENT_LOOP_PORT=1\n")
    monkeypatch.chdir(tmp_path)
    assert "image: agent-loop/to-be-built" in before
    assert stack.compose("config", capture=True).stdout == before
    assert variable not in stack.environment()


def test_how_compose_writes_stays_the_persons_choice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its colours and progress are nobody else's matter."""
    monkeypatch.setenv("COMPOSE_ANSI", "never")
    assert Project(state=tmp_path).environment()["COMPOSE_ANSI"] == "never"


def test_an_empty_variable_is_one_that_is_not_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the compose files take it: a job's `VARIABLE:` without a value gives the default, on either side."""
    for variable in ("AGENT_LOOP_STATE", "AGENT_LOOP_PROJECT", "AGENT_LOOP_TRAIN_PROJECT", "AGENT_LOOP_MODEL"):
        monkeypatch.setenv(variable, "")
    assert project.state_place() == project.ROOT / "state"
    assert (project.name(), project.name("train")) == ("agent-loop", "agent-loop-train")
    stack = Project(state=tmp_path)
    assert models.served_name(stack) == Wanted.model
    empty = {name: "" for ports in PORTS.values() for name in ports}
    assert wanted_by("dev", "auto", False, {"AGENT_LOOP_MODEL": "", **empty}) == Wanted(disk=DISK_FIRST)


def test_settings_last_in_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A later start from a shell that knows nothing has the same domain, ports and links, for every part that asks."""
    for name in ("SERVER_NAME", "HTTPS_PORT", "HTTP_PORT", "PUBLIC_URL", "AGENT_NETWORK_SUBNET"):
        monkeypatch.delenv(name, raising=False)
    lines = ("SERVER_NAME=agent.example www.agent.example", "HTTPS_PORT=8443", "AGENT_NETWORK_SUBNET=172.30.0.0/16")
    (tmp_path / "settings.env").write_text("\n".join(lines))
    stack = Project("prod", state=tmp_path)
    settings = stack.environment()
    assert settings["PUBLIC_URL"] == up.address("nginx", 8443, settings) == "https://agent.example:8443"
    wanted = wanted_by("prod", "auto", False, settings)
    assert (wanted.ports, wanted.subnets) == ({"HTTP_PORT": 80, "HTTPS_PORT": 8443}, ("172.30.0.0/16",))
    up.proxy_files(stack, Context(lambda line: None, lambda lines: None))
    written = (tmp_path / "nginx" / "nginx.conf").read_text()
    assert "server_name agent.example www.agent.example;" in written
    assert "https://$host:8443$request_uri" in written


def test_links_follow_the_domain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`PUBLIC_URL` is needed only where something else stands in front."""
    for name in ("SERVER_NAME", "HTTPS_PORT", "PUBLIC_URL"):
        monkeypatch.delenv(name, raising=False)
    assert Project("prod", state=tmp_path).environment()["PUBLIC_URL"] == "https://localhost"
    monkeypatch.setenv("SERVER_NAME", "agent.example")
    assert Project("prod", state=tmp_path).environment()["PUBLIC_URL"] == "https://agent.example"
    monkeypatch.setenv("PUBLIC_URL", "https://front.example")
    assert Project("prod", state=tmp_path).environment()["PUBLIC_URL"] == "https://front.example"


def test_what_a_program_reads_is_part_of_its_definition(tmp_path: Path) -> None:
    """A rule added, a receiver changed, a file renamed: another hash for what reads it, and for no other."""
    for names in mounted.READ.values():
        for name in names:
            path = tmp_path / name / "one.yml" if not Path(name).suffix else tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("a: 1")
    first = mounted.environment(tmp_path)
    assert mounted.environment(tmp_path) == first
    (tmp_path / "prometheus" / "rules" / "own.yml").write_text("groups: []")
    (tmp_path / "alertmanager" / "alertmanager.yml").write_text("a: 2")
    second = mounted.environment(tmp_path)
    changed = {name for name in first if first[name] != second[name]}
    assert changed == {"AGENT_LOOP_READ_PROMETHEUS", "AGENT_LOOP_READ_ALERTMANAGER"}
    (tmp_path / "prometheus" / "rules" / "own.yml").rename(tmp_path / "prometheus" / "rules" / "other.yml")
    assert mounted.environment(tmp_path)["AGENT_LOOP_READ_PROMETHEUS"] != second["AGENT_LOOP_READ_PROMETHEUS"]


def test_logs_are_collected_where_the_engine_keeps_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine with another data-root is asked for it; a person's own word wins; without logs nobody asks."""
    engine = container_engine.Engine("28.0", True, "/srv/docker")
    monkeypatch.delenv("AGENT_LOOP_CONTAINER_LOGS", raising=False)
    monkeypatch.setattr(container_engine, "answers", lambda: engine)
    project.container_logs.cache_clear()
    try:
        searched = Project("prod", logs=True, state=tmp_path)
        assert searched.environment()["AGENT_LOOP_CONTAINER_LOGS"] == "/srv/docker/containers"
        monkeypatch.setenv("AGENT_LOOP_CONTAINER_LOGS", "/elsewhere")
        assert searched.environment()["AGENT_LOOP_CONTAINER_LOGS"] == "/elsewhere"
        monkeypatch.delenv("AGENT_LOOP_CONTAINER_LOGS")
        assert "AGENT_LOOP_CONTAINER_LOGS" not in Project("prod", state=tmp_path).environment()
    finally:
        project.container_logs.cache_clear()


@given(st.dictionaries(NAMES, VALUES, max_size=5))
def test_environment_files_come_back_as_written(values: dict[str, str]) -> None:
    """Writing and reading is the identity."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.env"
        project.write_env(path, values, "a comment")
        assert project.read_env(path) == values


def test_a_store_in_postgresql_is_told_where_its_address_is(tmp_path: Path) -> None:
    """An empty secret means SQLite, and no variable; a filled one is named by its place in the container."""
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "database_url").write_text("")
    assert "AGENT_LOOP_DATABASE_SECRET" not in Project(state=tmp_path).environment()
    (tmp_path / "secrets" / "database_url").write_text("postgresql+asyncpg://agent:x@db/runs")
    told = Project(state=tmp_path).environment()
    assert told["AGENT_LOOP_DATABASE_SECRET"] == "/run/secrets/database_url"
    assert Project(state=tmp_path).environment()["AGENT_LOOP_DATABASE_GIVEN"] == told["AGENT_LOOP_DATABASE_GIVEN"]
    os.utime(tmp_path / "secrets" / "database_url", ns=(1, 1))
    assert Project(state=tmp_path).environment()["AGENT_LOOP_DATABASE_GIVEN"] == "1"


@pytest.mark.parametrize("card_before", [False, True])
def test_a_switch_between_processor_and_card_leaves_one_model_server(card_before: bool, tmp_path: Path) -> None:
    """Both answer to the name `ollama`, so the one that ran before goes; without a switch nothing does."""
    before, now = (Project("prod", gpu=card, state=tmp_path) for card in (card_before, not card_before))
    assert up.other_variant(before, now) is None, "nothing was started yet"
    project.remember(before)
    assert up.other_variant(project.remembered(tmp_path), now) == ("ollama-gpu" if card_before else "ollama")
    assert up.other_variant(project.remembered(tmp_path), before) is None
    assert up.other_variant(before, Project("prod", offline=True, state=tmp_path)) is None


@pytest.mark.parametrize(
    ("container", "wrong"),
    [
        ({"State": "running", "Health": "healthy", "ExitCode": 0}, None),
        ({"State": "running", "Health": "", "ExitCode": 0}, None),
        ({"State": "exited", "Health": "", "ExitCode": 0}, None),
        ({"State": "created", "Health": "", "ExitCode": 0}, None),
        ({"State": "exited", "Health": "", "ExitCode": 2}, "exited"),
        ({"State": "running", "Health": "unhealthy", "ExitCode": 0}, "unhealthy"),
        ({"State": "running", "Health": "starting", "ExitCode": 0}, "starting"),
        # As seen of one that ends at once and is started again: no health, no exit status.
        ({"State": "restarting", "Health": "", "ExitCode": 0}, "restarting"),
        ({"State": "restarting", "Health": "starting", "ExitCode": 0}, "restarting"),
    ],
)
def test_what_keeps_a_stack_from_being_up(container: dict[str, object], wrong: str | None) -> None:
    """A container that ends again and again is named, whatever moment it is looked at."""
    assert up.trouble(container) == wrong
