"""What every image of the system promises, checked on what would be built, with nothing built."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Mapping

import dagger
import pytest
from agent_loop_ci import stages
from agent_loop_ci.bases import PYTHON

from tests.ci.module.conftest import IMAGES, RELEASE, ROOT, STAGES, Planned, Plans

Images = Mapping[str, Planned]

every_image = pytest.mark.parametrize("name", IMAGES)
every_stage = pytest.mark.parametrize("name", sorted(STAGES))


@every_stage
def test_every_base_is_pinned_by_tag_and_digest(planned: Images, name: str) -> None:
    """No `from` anywhere beneath a stage can change under us."""
    addresses = [node.args["address"] for node in planned[name].everything() if node.field == "from"]
    assert addresses
    for address in addresses:
        assert re.fullmatch(r"docker\.io/library/[a-z]+:[\w.-]+@sha256:[0-9a-f]{64}", address)


@every_stage
def test_every_base_is_in_the_pin_file(planned: Images, name: str) -> None:
    """A dependency bot that reads `bases.py` sees all there is."""
    addresses = {node.args["address"] for node in planned[name].everything() if node.field == "from"}
    assert addresses == {PYTHON.address}


@every_image
def test_the_user_is_numeric_and_not_root(planned: Images, name: str) -> None:
    """Kubernetes' runAsNonRoot can only check numbers."""
    user, group = planned[name].last("withUser")["name"].split(":")
    assert int(user) >= 1000
    assert int(group) >= 1000
    fields = [node.field for node in planned[name].node.chain()]
    last_user = len(fields) - fields[::-1].index("withUser")
    assert "withExec" not in fields[last_user:]  # nothing is built as the user


def test_the_training_user_is_the_one_the_system_names(planned: Images) -> None:
    """Mounted folders of a workstation's first user are writable: uid 1000, called `trainer`."""
    assert planned["training"].last("withUser")["name"] == "1000:1000"
    assert planned["training"].named("useradd --uid 1000 ")


@every_image
def test_it_starts_and_is_checked_without_a_shell(planned: Images, name: str) -> None:
    """Entrypoint and health check are words for the environment's own interpreter."""
    image = planned[name]
    assert image.last("withEntrypoint")["args"][0] == "/app/.venv/bin/python"
    check = image.last("withDockerHealthcheck")
    assert check["args"][0] == "/app/.venv/bin/python"
    assert check["shell"] is False
    fields = [node.field for node in image.node.chain()]
    if "withDefaultArgs" in fields:  # an entrypoint set later would drop them
        assert fields.index("withDefaultArgs") > fields.index("withEntrypoint")


@every_image
def test_it_says_what_it_is(planned: Images, name: str) -> None:
    """All labels of row A6, from the release that was given."""
    labels = planned[name].labels()
    assert labels["revision"] == RELEASE.revision
    assert labels["created"] == RELEASE.created
    assert labels["version"] == RELEASE.version
    assert labels["licenses"] == "MIT"
    assert labels["source"].startswith("https://")
    assert labels["base.name"] == PYTHON.name
    assert labels["base.digest"] == PYTHON.digest
    assert labels["title"].startswith("agent-loop ")


@every_image
def test_what_changes_with_a_commit_comes_last(planned: Images, name: str) -> None:
    """After the first label there is nothing but labels: a new commit rebuilds no step."""
    fields = [node.field for node in planned[name].node.chain()]
    labels = fields[fields.index("withLabel") :]
    assert set(labels) == {"withLabel"}


def test_a_new_commit_changes_labels_only(plan: Plans) -> None:
    """Two releases of the same sources share every step up to the labels."""
    one, other = (
        plan(lambda source, r=release: stages.runtime(source, r))
        for release in (RELEASE, stages.Release("f" * 40, "2026-02-02T00:00:00Z", "1.2.4"))
    )
    before = [[n.key for n in p.node.chain() if n.field != "withLabel"] for p in (one, other)]
    assert before[0] == before[1]
    assert one.node.key != other.node.key


@every_image
def test_python_writes_no_bytecode_and_buffers_nothing_at_run_time(planned: Images, name: str) -> None:
    """Logs come at once; a read-only root is no trouble."""
    variables = planned[name].variables()
    assert variables["PYTHONUNBUFFERED"] == "1"
    assert variables["PYTHONDONTWRITEBYTECODE"] == "1"
    assert variables["PATH"].split(":")[0] == "/app/.venv/bin"


@pytest.mark.parametrize("name", [name for name in IMAGES if name != "test"])
def test_sources_come_after_everything_they_do_not_decide(planned: Images, name: str) -> None:
    """In the image's own chain no file is copied after the sources, so that an edit adds one layer."""
    chain = planned[name].node.chain()
    files = [n for n in chain if n.field in ("withDirectory", "withFile", "withExec", "withNewFile")]
    assert re.fullmatch(r"/app/(service|observability|trainer)", files[-1].args["path"])
    assert files[-2].args["path"] == "/app/.venv"


@pytest.mark.parametrize(
    ("name", "package"), [("runtime", "service"), ("ops", "observability"), ("training", "trainer")]
)
def test_dependencies_are_made_without_the_sources(planned: Images, name: str, package: str) -> None:
    """`/app/.venv` rests on the locked sets alone: an edit of a source file reinstalls nothing."""
    [made] = [
        node.args["source"]
        for node in planned[name].node.chain()
        if node.field == "withDirectory" and node.args["path"] == "/app/.venv"
    ]
    requirements = {"training": "trainer", "runtime": "service"}.get(name, name)
    assert Planned(made).host_files() == {f"requirements/{requirements}.txt", "requirements/uv.txt"}
    assert planned[name].host_files() == {f"requirements/{requirements}.txt", "requirements/uv.txt", package}


@every_image
def test_no_cache_reaches_an_image(planned: Images, name: str) -> None:
    """Caches are mounts of steps; the folders of uv and pip are never written to otherwise."""
    chain = planned[name].node.chain()
    copied = [n.args["path"] for n in chain if n.field in ("withDirectory", "withFile", "withNewFile")]
    assert not [path for path in copied if "cache" in path]
    mounts = {n.args["path"] for n in planned[name].everything() if n.field == "withMountedCache"}
    assert mounts <= {"/root/.cache/uv", "/var/cache/apt", "/var/lib/apt/lists"}


@every_image
def test_no_secret_is_in_variables_or_arguments(planned: Images, name: str) -> None:
    """Nothing whose name says that it is secret has a value in the image."""
    for variable in planned[name].variables():
        assert not re.search(r"token|secret|password|key", variable, re.I)
    assert not [n for n in planned[name].everything() if n.field == "setSecret"]


@pytest.mark.parametrize("name", ["runtime", "dev", "ops"])
def test_served_images_run_no_step_of_their_own(planned: Images, name: str) -> None:
    """They are copies onto the base: no compiler, no uv, no package manager's traces, any platform."""
    assert planned[name].steps("withExec") == []
    copied = {n.args["path"] for n in planned[name].node.chain() if n.field == "withDirectory"}
    assert {path for path in copied if path.startswith("/app")} == {
        "/app/.venv",
        {"ops": "/app/observability"}.get(name, "/app/service"),
    }


@pytest.mark.parametrize("name", [name for name in STAGES if name not in ("training",)])
def test_torch_is_in_the_training_image_alone(planned: Images, name: str) -> None:
    """No other image reads a set that holds torch."""

    for path in planned[name].host_files():
        if path.startswith("requirements/") and (name, path) != ("lint", "requirements/dev.txt"):
            assert not re.search(r"^(torch|triton)==", (ROOT / path).read_text(), re.M)


def test_a_compiler_is_in_the_training_image_alone(planned: Images) -> None:
    """Triton needs one when it runs; nothing else does."""
    assert planned["training"].named("gcc libc6-dev libpython3-dev")
    assert not [name for name in STAGES if name != "training" and planned[name].named("gcc")]


@every_stage
def test_only_wheels_with_known_hashes_are_installed(planned: Images, name: str) -> None:
    """Every installation demands hashes and takes no source distribution, so no package's code runs."""
    installing = [
        " ".join(node.args["args"])
        for node in planned[name].everything()
        if node.field == "withExec" and "pip install" in " ".join(node.args["args"])
    ]
    assert installing
    for words in installing:
        assert "--require-hashes" in words
        assert "--only-binary :all:" in words


def test_the_development_image_can_see_an_edit(planned: Images) -> None:
    """Unchecked bytecode would hide it: the image has none, and reloads."""
    assert not planned["dev"].named("compileall")
    assert planned["runtime"].named("compileall")
    assert planned["dev"].last("withDefaultArgs")["args"] == ["serve", "--reload"]


def test_another_platform_s_image_runs_nothing_of_that_platform(plan: Plans) -> None:
    """Only the last stage is of the other platform, and it only copies: no emulation is needed."""
    arm = plan(lambda s: stages.runtime(s, RELEASE, platform=dagger.Platform("linux/arm64")))
    foreign = [n for n in arm.everything() if n.chain() and n.chain()[0].args.get("platform") == "linux/arm64"]
    assert foreign
    assert not [n for n in foreign if n.field == "withExec"]
    assert arm.named("aarch64-manylinux")


def test_jupyter_comes_only_when_asked_for(plan: Plans) -> None:
    """`--tools` takes the set with Jupyter Lab and Weights & Biases."""
    made = plan(lambda source: stages.training(source, RELEASE, tools=True))
    assert "requirements/tracking.txt" in made.host_files()
    assert "requirements/trainer.txt" not in made.host_files()


@pytest.mark.parametrize("name", sorted(STAGES))
def test_only_apt_itself_holds_the_cache_that_builds_take_turns_with(planned: Images, name: str) -> None:
    """A compilation, a suite or a training that held it too would make every other build wait for its end."""
    holding: list[list[str]] = []
    for step in planned[name].everything():
        if step.field == "withExec":
            mounted: set[str] = set()
            for link in step.chain():
                if link.field == "withMountedCache" and link.args.get("sharing") == "LOCKED":
                    mounted.add(link.args["path"])
                elif link.field == "withoutMount":
                    mounted.discard(link.args["path"])
            holding += [step.args["args"]] if mounted and "apt-get" not in str(step.args["args"]) else []
    assert holding == []


def test_the_policy_command_holds_on_our_own_module() -> None:
    """What we offer others passes on ourselves: nothing broken, and each silence has its reason."""
    done = subprocess.run(
        [sys.executable, "-m", "ci.cli", "policy"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
    assert " 0 broken" in done.stdout
