"""Training, the suite and the supply chain, on the plans of what they run."""

from __future__ import annotations

import json
from collections.abc import Mapping

import anyio
import dagger
import pytest
from agent_loop_ci import publishing, supply, training
from agent_loop_ci.errors import BadArgument, tail
from agent_loop_ci.training import Run
from dagger import dag

from tests.ci.module.conftest import RELEASE, Make, PlanAll, Planned, Plans

BASE = "docker.io/library/python:3.13-slim-trixie@sha256:" + "1" * 64


def image() -> dagger.Container:
    return dag.container().from_(BASE)


def trained(run: Run) -> Make:
    return lambda _: training.trained(image(), run)


@pytest.fixture(scope="module")
def runs(plan_all: PlanAll) -> Mapping[str, Planned]:
    """Four calls: two alike, one that goes on with the first, one with everything."""

    def everything(source: dagger.Directory) -> dagger.Directory:
        data, token = source.file("requirements/uv.txt"), dag.secret("env://AL_TEST_TOKEN")
        return training.trained(
            image(), Run("run-1", "d", "gemma-9b", data, token, gpu=True, options=("--max-steps", "3"))
        )

    return plan_all(
        {
            "first": trained(Run("run-1", "a", "gemma-2b")),
            "second": trained(Run("run-2", "b", "gemma-2b")),
            "again": trained(Run("run-1", "c", "gemma-2b")),
            "everything": everything,
        }
    )


def words(planned: Planned) -> list[str]:
    """The trainer's command line in a plan."""
    return next(args["args"] for args in planned.steps("withExec") if "trainer" in args["args"])


def test_every_call_trains(runs: Mapping[str, Planned]) -> None:
    """Two calls never share the step that trains, not even with the same run id."""
    keys = {
        next(n.key for n in planned.node.chain() if n.field == "withExec")
        for planned in (runs["first"], runs["second"], runs["again"])
    }
    assert len(keys) == 3


def test_the_same_run_id_goes_on_where_it_stopped(runs: Mapping[str, Planned]) -> None:
    """The run lives in the checkpoint cache under its id, and the trainer resumes what it finds there."""
    assert words(runs["first"]) == words(runs["again"]) != words(runs["second"])
    assert words(runs["first"])[-4:] == ["--output", "/checkpoints", "--run-id", "run-1"]
    mounts = {m["path"] for m in runs["first"].steps("withMountedCache")}
    assert mounts == {"/models", "/checkpoints"}


def test_the_result_is_taken_out_of_the_cache(runs: Mapping[str, Planned]) -> None:
    """A cache cannot be read from outside, so a last step copies the run to where it can."""
    copying = runs["first"].steps("withExec")[-1]["args"]
    assert copying[-2:] == ["/checkpoints/run-1", "/runs/result"]
    assert runs["first"].last("directory")["path"] == "/runs/result"


def test_a_gpu_is_taken_only_when_asked_for(runs: Mapping[str, Planned]) -> None:
    """Without --gpu the chain runs on an engine without GPU support."""
    assert runs["first"].steps("experimentalWithAllGPUs") == []
    assert len(runs["everything"].steps("experimentalWithAllGPUs")) == 1


def test_data_token_and_options_reach_the_trainer(runs: Mapping[str, Planned]) -> None:
    """The token as a secret variable, never as a word."""
    line = words(runs["everything"])
    assert line[line.index("--data") + 1] == runs["everything"].last("withMountedFile")["path"]
    assert line[-2:] == ["--max-steps", "3"]
    assert runs["everything"].last("withSecretVariable")["name"] == "HF_TOKEN"
    assert "--data" not in words(runs["first"])


@pytest.mark.parametrize("identity", ["", "../up", "a b", "-x", "x" * 65])
def test_a_run_id_that_is_no_folder_name_is_refused(identity: str) -> None:
    """It becomes a path: nothing that leaves the folder passes."""
    with pytest.raises(BadArgument, match="Not a run id"):
        Run(identity, "c", "gemma-2b")


@pytest.mark.parametrize("model", ["", "--config=x"])
def test_a_model_that_is_an_option_is_refused(model: str) -> None:
    """A model's name cannot turn into another option of the trainer."""
    with pytest.raises(BadArgument, match="Not a model"):
        Run("run", "c", model)


def test_an_unknown_image_is_refused_with_the_names_there_are() -> None:
    """One line that lists them."""
    with pytest.raises(BadArgument, match=r"'servce'.*runtime, dev, ops, training"):
        publishing.images(dag.directory(), RELEASE, ["servce"])


def test_a_platform_for_an_image_that_runs_steps_is_refused() -> None:
    """The training image installs packages: it cannot be made for another platform by copying."""
    target = publishing.Target("registry.example/x:1")
    with pytest.raises(BadArgument, match="runtime or ops"):
        anyio.run(
            lambda: publishing.publish(dag.directory(), RELEASE, "training", (dagger.Platform("linux/arm64"),), target)
        )


def test_an_sbom_is_read_from_the_image_s_files(plan: Plans) -> None:
    """syft gets the file system itself: no registry and no Docker is asked."""
    made = plan(
        lambda source: supply.sbom(
            image(), supply.SbomFormat.CYCLONEDX, "agent-loop x", "1.2.3", source.file("requirements/uv.txt")
        )
    )
    assert "dir:/image" in made.last("withExec")["args"]
    assert "cyclonedx-json=/out/sbom.json" in made.last("withExec")["args"]
    assert made.last("withMountedDirectory")["source"].field == "rootfs"
    assert not made.named("go build")


def test_a_tool_that_is_not_given_is_built_at_a_pinned_version(plan: Plans) -> None:
    """Go takes exactly one version of the module, checked by its checksum database."""
    made = plan(lambda _: supply.sbom(image(), supply.SbomFormat.SPDX, "x", "1", None))
    assert made.named(f"go get -tool {supply.SYFT.package}@{supply.SYFT.version}")


def test_a_scan_asks_no_network_and_fails_from_high_on(plan: Plans) -> None:
    """The database is a folder that is given; grype may not fetch another."""
    made = plan(
        lambda source: supply.scan(
            source.file("requirements/uv.txt"),
            source.directory("service"),
            supply.Severity.HIGH,
            source.file("requirements/uv.txt"),
        )
    )
    assert made.variables()["GRYPE_DB_AUTO_UPDATE"] == "false"
    assert made.variables()["GRYPE_DB_CACHE_DIR"] == made.last("withMountedDirectory")["path"]
    args = made.last("withExec")["args"]
    assert args[args.index("--fail-on") + 1] == "high"


def test_a_signature_is_about_the_manifest_s_digest_and_leaks_no_key(plan: Plans) -> None:
    """The signed text names reference and digest; key and password come as secrets; nothing is uploaded."""
    subject = supply.Subject("registry.example/agent-loop", "sha256:" + "a" * 64)
    secret = "env://AL_TEST_KEY"
    made = plan(
        lambda source: supply.sign(subject, dag.secret(secret), dag.secret(secret), source.file("requirements/uv.txt"))
    )
    payload = json.loads(made.last("withNewFile")["contents"])
    assert payload["critical"]["image"] == {"docker-manifest-digest": subject.digest}
    assert payload["critical"]["identity"] == {"docker-reference": subject.reference}
    assert made.last("withMountedSecret")["path"] == "/run/cosign.key"
    assert made.last("withSecretVariable")["name"] == "COSIGN_PASSWORD"
    assert "--tlog-upload=false" in made.last("withExec")["args"]


@pytest.mark.parametrize("digest", ["latest", "sha256:abc", "sha256:" + "g" * 64])
def test_what_is_no_digest_cannot_be_signed(digest: str) -> None:
    """A tag is not signed by mistake."""
    with pytest.raises(BadArgument, match="Not a digest"):
        supply.Subject("x", digest)


def test_the_tail_of_an_output_says_what_it_left_out() -> None:
    """A long output is cut at its start, a short one not at all."""
    assert tail("a\nb\nc\n", 2) == "[1 lines before]\nb\nc"
    assert tail("a\nb\n", 2) == "a\nb"
