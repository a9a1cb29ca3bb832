"""Upgrades back up first and can go back; backups speak of the right stack; jobs bring their data along."""

from __future__ import annotations

from pathlib import Path

import pytest

from ci.stack import backups, images, maintenance, project
from ci.stack.errors import StackError, StartFailed, UsageError
from ci.stack.images import OPS, RUNTIME
from ci.stack.maintenance import Parts, data_mounted
from ci.stack.project import Project
from ci.stack.up import Context

OLD, NEW = f"agent-loop/runtime@sha256:{'a' * 64}", f"agent-loop/runtime@sha256:{'b' * 64}"


class Steps:
    """The parts of an upgrade that touch containers, written down in order instead."""

    def __init__(self, built: str = NEW, healthy: bool = True) -> None:
        self.taken: list[str] = []
        self.built, self.healthy = built, healthy

    def parts(self) -> Parts:
        """As `upgrade` takes them."""
        return Parts(self.back_up, self.start, self.build)

    def back_up(self, stack: Project, context: Context) -> None:
        self.taken.append("backup")

    def build(self, stack: Project, context: Context) -> Project:
        self.taken.append("build")
        project.write_env(stack.images_env, {RUNTIME.variable: self.built}, "built")
        return stack

    def start(self, stack: Project, context: Context) -> Project:
        self.taken.append(f"start {project.read_env(stack.images_env)[RUNTIME.variable][-1]}")
        if not self.healthy and project.read_env(stack.images_env)[RUNTIME.variable] == NEW:
            raise StartFailed("agent (unhealthy)")
        return stack


@pytest.fixture
def stack(tmp_path: Path) -> Project:
    """A stack that runs the old image."""
    made = Project("prod", state=tmp_path)
    project.write_env(made.images_env, {RUNTIME.variable: OLD}, "old")
    return made


@pytest.fixture
def said() -> list[str]:
    """Lines for the person."""
    return []


@pytest.fixture
def context(said: list[str]) -> Context:
    """Speaks into `said`."""
    return Context(said.append, lambda lines: None)


class TestUpgrade:
    """Nothing is replaced before it is backed up, and what does not start is undone."""

    def test_backs_up_builds_and_starts(self, stack: Project, context: Context) -> None:
        """In this order, and what ran before is remembered."""
        steps = Steps()
        maintenance.upgrade(stack, context, steps.parts())
        assert steps.taken == ["backup", "build", "start b"]
        assert project.read_env(maintenance.previous(stack)) == {RUNTIME.variable: OLD}

    def test_equal_images_take_up_files_and_settings(self, stack: Project, context: Context, said: list[str]) -> None:
        """A change of rules, proxy or compose file makes no image; compose leaves alone what is as it was."""
        steps = Steps(built=OLD)
        maintenance.upgrade(stack, context, steps.parts())
        assert steps.taken == ["backup", "build", "start a"]
        assert said[-1].startswith("The images are what ran already")

    def test_an_upgrade_to_the_same_keeps_the_way_back(
        self, stack: Project, context: Context, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """`rollback` after it still starts what ran before the last upgrade that changed something."""
        monkeypatch.setattr(maintenance.images, "digest", lambda name: "sha256:" + "a" * 64)
        maintenance.upgrade(stack, context, Steps().parts())
        maintenance.upgrade(stack, context, Steps().parts())
        steps = Steps()
        maintenance.rollback(stack, context, steps.parts())
        assert steps.taken == ["start a"]

    def test_unhealthy_goes_back(self, stack: Project, context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
        """The old image runs again, and the command still fails."""
        monkeypatch.setattr(maintenance.images, "digest", lambda name: "sha256:" + "a" * 64)
        steps = Steps(healthy=False)
        with pytest.raises(StartFailed, match="Went back to the previous images"):
            maintenance.upgrade(stack, context, steps.parts())
        assert steps.taken == ["backup", "build", "start b", "start a"]

    def test_a_failed_backup_changes_nothing(self, stack: Project, context: Context) -> None:
        """Without a backup there is no upgrade."""

        def fail(stack: Project, context: Context) -> None:
            raise StackError("disk full")

        steps = Steps()
        with pytest.raises(StackError, match="disk full"):
            maintenance.upgrade(stack, context, Parts(fail, steps.start, steps.build))
        assert steps.taken == []
        assert project.read_env(stack.images_env) == {RUNTIME.variable: OLD}

    def test_rollback_looks_for_images_only(
        self, stack: Project, context: Context, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What a canary left beside them, a name and an empty place, is no image that could be missing."""
        left = {"AGENT_LOOP_CANARY_VARIANT": "bad", "AGENT_LOOP_IMAGE_CANARY": ""}
        project.write_env(stack.images_env, {RUNTIME.variable: OLD, **left}, "old")
        held = {OLD: "sha256:" + "a" * 64}
        monkeypatch.setattr(maintenance.images, "digest", held.get)
        steps = Steps()
        maintenance.upgrade(stack, context, steps.parts())
        maintenance.rollback(stack, context, steps.parts())
        assert steps.taken[-1] == "start a"
        assert project.read_env(stack.images_env) == {RUNTIME.variable: OLD, **left}

    def test_rollback_needs_an_upgrade(self, stack: Project, context: Context) -> None:
        """With nothing to go back to it says so."""
        with pytest.raises(UsageError, match="no upgrade was made"):
            maintenance.rollback(stack, context, Steps().parts())


class TestBackups:
    """The words of a backup command choose the stack."""

    @pytest.mark.parametrize(
        ("words", "wanted"),
        [
            (["create"], ["service", "checkpoints"]),
            (["create", "--what", "all"], ["service", "checkpoints"]),
            (["create", "--what", "checkpoints"], ["checkpoints"]),
            (["list", "--what=service"], ["service"]),
            (["restore", "20260101T000000Z-checkpoints"], ["checkpoints"]),
            (["verify", "20260101T000000Z-service"], ["service"]),
        ],
    )
    def test_what_is_meant(self, words: list[str], wanted: list[str]) -> None:
        """By `--what`, by an id, else everything."""
        assert backups.kinds(words) == wanted

    @pytest.mark.parametrize("words", [["create", "--what", "models"], ["create", "--what"]])
    def test_an_unknown_word_is_named(self, words: list[str]) -> None:
        """With the words that there are."""
        with pytest.raises(UsageError, match="Use service, checkpoints or all"):
            backups.kinds(words)

    def test_no_stack_says_how_to_start_one(self, tmp_path: Path, context: Context) -> None:
        """Nothing was started with this state folder."""
        with pytest.raises(UsageError, match="No stack that holds service"):
            backups.run(tmp_path, ["create", "--what", "service"], context)


class TestJob:
    """A file of this machine reaches the training container."""

    def test_the_file_is_mounted_read_only(self, tmp_path: Path) -> None:
        """`--data FILE` becomes a mount and the path inside."""
        data = tmp_path / "my chats.jsonl"
        data.touch()
        mounts, words = data_mounted(["train", "--data", str(data), "--model", "tiny"])
        assert mounts == ["--volume", f"{data}:/input/my chats.jsonl:ro"]
        assert words == ["train", "--data", "/input/my chats.jsonl", "--model", "tiny"]

    def test_a_name_that_is_no_file_here_is_left_alone(self) -> None:
        """It may be a path of the container."""
        assert data_mounted(["train", "--data", "/data/x.jsonl"]) == ([], ["train", "--data", "/data/x.jsonl"])

    def test_without_a_training_stack_it_says_how(self, tmp_path: Path) -> None:
        """The image is built by `up train`."""
        with pytest.raises(UsageError, match="up train"):
            maintenance.job(Project("train", state=tmp_path), ["train"])


def test_a_backup_builds_its_image_where_it_was_removed(
    tmp_path: Path, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The record outlives an image that a person removed; what is there is not built again."""
    stack = Project("dev", state=tmp_path)
    there, gone, built = (f"agent-loop/ops@sha256:{letter * 64}" for letter in "abc")
    monkeypatch.setattr(images, "digest", lambda name: None if name == gone else "sha256:")
    monkeypatch.setattr(images, "build", lambda wanted, export: {OPS.variable: built})
    monkeypatch.setattr(backups.networks, "launch", lambda *words, **more: 0)
    for recorded, left in ((there, there), (gone, built)):
        project.write_env(stack.images_env, {OPS.variable: recorded}, "recorded")
        assert backups.beside(stack, ["list"], context) == 0
        assert project.read_env(stack.images_env) == {OPS.variable: left}
