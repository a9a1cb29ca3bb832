"""The plan's arithmetic against figures worked out by hand from the published sizes, and its choices."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from trainer import cards, launch, plan, presets
from trainer.config import resolve
from trainer.errors import ConfigError, DoesNotFit, UnsupportedModel
from trainer.plan import LEVELS, Work
from trainer.settings import TrainConfig
from trainer.shape import Shape


def shape(name: str) -> Shape:
    return Shape.read(presets.PRESETS[name].shape)


def settings(name: str, *sets: str) -> TrainConfig:
    return resolve(name, sets=sets).config


class TestOperations:
    @pytest.mark.parametrize(
        ("name", "body", "head", "adapters", "recompute", "keep"),
        [
            ("gemma-2b", 2.024, 0.590, 20.8, 15.65, 11.34),
            ("gemma-9b", 8.324, 0.918, 54.0, 57.2, 39.8),
            ("gemma-3-1b", 0.698, 0.302, 13.0, 6.0, 4.5),
            ("gemma-3-4b", 3.209, 0.671, 29.8, 23.5, 16.7),
        ],
    )
    def test_golden(self, name: str, body: float, head: float, adapters: float, recompute: float, keep: float) -> None:
        """Parameters (billions; adapters in millions) and GFLOP a token at 2048 tokens and rank 16."""
        sizes = shape(name)
        assert sizes.body / 1e9 == pytest.approx(body, abs=5e-4)
        assert sizes.embedding / 1e9 == pytest.approx(head, abs=5e-4)
        assert sizes.adapters(16) / 1e6 == pytest.approx(adapters, abs=0.05)
        assert sizes.flops(16, 2048, level="full") / 1e9 == pytest.approx(recompute, rel=0.01)
        assert sizes.flops(16, 2048, level="off") / 1e9 == pytest.approx(keep, rel=0.01)

    @pytest.mark.parametrize(
        ("name", "length", "gflop"),
        [("gemma-2b", 512, 14.9), ("gemma-2b", 8192, 18.6), ("gemma-9b", 512, 54.8), ("gemma-9b", 8192, 66.7)],
    )
    def test_golden_lengths(self, name: str, length: int, gflop: float) -> None:
        """Attention grows with the sequence, the rest does not."""
        assert shape(name).flops(16, length, level="full") / 1e9 == pytest.approx(gflop, rel=0.01)


class TestMemory:
    @pytest.mark.parametrize(
        ("name", "base", "adapters", "eight_bit", "total"),
        [("gemma-2b", 2.2, 0.17, 0.04, 5.5), ("gemma-9b", 6.1, 0.43, 0.11, 12.0)],
    )
    def test_golden(self, name: str, base: float, adapters: float, eight_bit: float, total: float) -> None:
        """Decimal gigabytes at 4 x 2048 tokens with recomputed layers; the total with a head of 0.27 GB."""
        parts = plan.memory(
            shape(name),
            settings(name),
            micro=4,
            level="full",
            resident=False,
            attention="flex_attention",
            loss_chunk=1024,
        )
        assert parts["weights"] / 1e9 == pytest.approx(base, abs=0.05)
        assert parts["adapters"] / 1e9 == pytest.approx(adapters, abs=0.005)
        assert parts["optimizer"] / 1e9 == pytest.approx(eight_bit, abs=0.005)
        assert (sum(parts.values()) - parts["loss head"]) / 1e9 + 0.27 == pytest.approx(total, abs=0.05)

    def test_what_the_alternatives_cost(self) -> None:
        """The resident base adds 3.0 GB net, fp32 moments 0.12, eager attention 1.6 GB a layer, kept layers 30."""

        def total(**changes: object) -> float:
            choices = {"micro": 4, "level": "full", "resident": False, "attention": "sdpa", "loss_chunk": 256}
            config = settings("gemma-2b", f"optimizer.name={changes.pop('optimizer', 'adamw_8bit')}")
            return sum(plan.memory(shape("gemma-2b"), config, **{**choices, **changes}).values()) / 1e9  # type: ignore[arg-type]

        assert total(resident=True) - total() == pytest.approx(3.0, abs=0.05)
        assert total(optimizer="adamw") - total() == pytest.approx(0.12, abs=0.01)
        assert total(attention="eager") - total() == pytest.approx(1.6, abs=0.05)
        assert total(level="off") - total() == pytest.approx(30, abs=2)

    @pytest.mark.parametrize(
        ("name", "off", "selective", "full", "gflop"),
        [
            ("gemma-2b", 149_504, 63_232, 4_608, 11.36),
            ("gemma-9b", 241_664, 103_712, 7_168, 39.8),
            ("gemma-3-1b", 91_136, 39_920, 2_304, 4.5),
        ],
    )
    def test_golden_levels(self, name: str, off: int, selective: int, full: int, gflop: float) -> None:
        """Bytes a token and layer (worked out by hand at rank 16), and what selective recomputing costs: next to none.

        selective, 2b: 2 x (2304 + q 2048 + k, v 2 x 1024 + o 2304 + gate, up 2 x 9216 + down 2304 + 7 x 16
        + attention 2048) + 4 x 8.
        """
        sizes = shape(name)
        assert [sizes.kept(16, level) for level in LEVELS] == [off, selective, full, 0]
        assert sizes.flops(16, 2048, level="selective") / 1e9 == pytest.approx(gflop, rel=0.01)


class TestChoices:
    @pytest.mark.parametrize("card", ["rtx-3090", "rtx-4090"])
    @pytest.mark.parametrize("name", ["gemma-2b", "gemma-9b"])
    def test_both_presets_fit_the_24_gb_cards(self, name: str, card: str) -> None:
        """The cards that were asked for hold both presets, with the effective batch unchanged."""
        config = settings(name)
        found = plan.make_plan(config, shape(name), cards.by_name(card))
        assert found.total < 24 * cards.GIB
        assert found.micro * found.accumulation == config.batch.micro * config.batch.accumulation

    def test_what_is_asked_for_is_kept(self) -> None:
        """Only what is `auto` is chosen."""
        config = settings("gemma-2b", "memory.checkpointing=full", "memory.resident=off", "memory.attention=eager")
        found = plan.make_plan(config, shape("gemma-2b"), cards.by_name("h200"))
        assert (found.level, found.resident, found.attention) == ("full", False, "eager")

    def test_plenty_of_memory_is_used_for_speed(self) -> None:
        """With room, no layer is recomputed and the base is kept dequantised; with little, the other way round."""
        large = plan.make_plan(settings("gemma-2b"), shape("gemma-2b"), cards.by_name("h200"))
        small = plan.make_plan(settings("gemma-2b"), shape("gemma-2b"), cards.by_name("6gb"))
        assert (large.level, large.resident, large.micro) == ("off", True, 4)
        assert (small.level, small.resident) == ("full", False)

    def test_levels_are_stages_between(self) -> None:
        """As the card grows, a 9B run at a length of 8192 goes from inputs in the host's memory to keeping all."""
        config = settings("gemma-9b", "data.max_length=8192", "memory.resident=off", "batch.micro=1")
        sizes = shape("gemma-9b")
        found = [plan.make_plan(config, sizes, cards.by_name(f"{gb}gb")) for gb in (11, 16, 48, 96)]
        assert [f.level for f in found] == ["offload", "full", "selective", "off"]
        assert [f.host for f in found] == [2 * 42 * 8192 * 3584, 0, 0, 0]
        assert all(f.total <= f.card.usable for f in found if f.card)

    def test_a_level_can_be_asked_for(self) -> None:
        """Each level by its name, also one that costs time without need."""
        for level in LEVELS:
            config = settings("gemma-2b", f"memory.checkpointing={level}", "batch.micro=1")
            found = plan.make_plan(config, shape("gemma-2b"), cards.by_name("h200"))
            assert found.level == level
            assert plan.apply(config, found).memory.checkpointing == level

    def test_fused_attention_follows_the_soft_cap(self) -> None:
        """Gemma 2 caps attention logits, which only flex attention does on a card; Gemma 3 takes sdpa."""
        card = cards.by_name("h100")
        assert plan.make_plan(settings("gemma-2b"), shape("gemma-2b"), card).attention == "flex_attention"
        assert plan.make_plan(settings("gemma-3-1b"), shape("gemma-3-1b"), card).attention == "sdpa"
        assert plan.make_plan(settings("gemma-2b"), shape("gemma-2b"), None).attention == "eager"

    def test_without_a_compiler_nothing_is_compiled(self) -> None:
        """A card whose machine cannot build kernels still trains: Gemma 2 with eager attention, Gemma 3 with sdpa."""
        bare = replace(cards.by_name("h100"), lacks="a C compiler (package gcc)")
        for name, attention in (("gemma-2b", "eager"), ("gemma-3-1b", "sdpa")):
            found = plan.make_plan(settings(name), shape(name), bare)
            assert (found.attention, found.compile) == (attention, False)
        for asked in ("memory.compile=on", "memory.attention=flex_attention"):
            with pytest.raises(ConfigError, match=f"{asked} compiles kernels, and here is not a C compiler"):
                launch._check_kernels(settings("gemma-2b", asked), bare)

    def test_advice_when_nothing_fits(self) -> None:
        """The error says what is needed, what is there, and a length that fits (tried, not guessed)."""
        config = settings("gemma-9b")
        with pytest.raises(DoesNotFit, match=r"needs 7\.5 GiB at least.*data\.max_length=1024") as caught:
            plan.make_plan(config, shape("gemma-9b"), cards.by_name("8gb"))
        assert caught.value.exit_code == 4
        shorter = settings("gemma-9b", "data.max_length=1024")
        assert plan.make_plan(shorter, shape("gemma-9b"), cards.by_name("8gb")).total < 8 * cards.GIB

    def test_memory_that_others_hold_is_named(self) -> None:
        """Planning uses what is free now, and says how to get the rest back."""
        taken = cards.Card("RTX 4090", 24 * cards.GIB, 165, free=3 * cards.GIB)
        with pytest.raises(DoesNotFit, match=r"21\.0 GiB that other programs hold .*ollama stop"):
            plan.make_plan(settings("gemma-2b"), shape("gemma-2b"), taken)

    def test_time_scales_with_work_and_card(self) -> None:
        """Twice the tokens take twice as long; an unknown card gets no estimate."""
        config, sizes = settings("gemma-2b"), shape("gemma-2b")
        card = cards.by_name("rtx-4090")
        one = plan.make_plan(config, sizes, card, Work(1_000_000, 0.5, 100)).seconds
        two = plan.make_plan(config, sizes, card, Work(2_000_000, 0.5, 100)).seconds
        assert one is not None
        assert two == pytest.approx(2 * one)
        assert plan.make_plan(config, sizes, cards.by_name("24gb"), Work(1_000_000, 0.5, 100)).seconds is None


class TestNames:
    @pytest.mark.parametrize("name", ["RTX 4090", "rtx4090", "RTX-4090"])
    def test_a_card_by_any_spelling(self, name: str) -> None:
        """Spaces, dashes and case do not matter."""
        assert cards.by_name(name) is cards.CARDS["rtx-4090"]

    def test_the_drivers_names(self) -> None:
        """The longest known name inside the driver's wins."""
        assert cards.peak_tflops("NVIDIA GeForce RTX 4090") == 165
        assert cards.peak_tflops("NVIDIA L40S") == 362
        assert cards.peak_tflops("Something else") is None

    def test_unknown_cards_and_designs(self) -> None:
        """Both are refused by name."""
        with pytest.raises(ConfigError, match="Unknown card 'foo'"):
            cards.by_name("foo")
        with pytest.raises(UnsupportedModel, match="'gpt2' has no 'hidden_size'"):
            Shape.read({"model_type": "gpt2", "n_embd": 768})
        with pytest.raises(UnsupportedModel, match="mixture of experts"):
            Shape.read({"model_type": "mixtral", "num_local_experts": 8})


class TestTools:
    def test_what_triton_needs(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """A compiler and Python's headers, each missed by the name of its package."""
        monkeypatch.setattr(cards.sysconfig, "get_paths", lambda: {"include": str(tmp_path)})
        monkeypatch.setenv("CC", "cc")
        assert cards.missing_tools() == "Python's headers (package python3-dev)"
        (tmp_path / "Python.h").touch()
        assert cards.missing_tools() == ""
        monkeypatch.delenv("CC")
        monkeypatch.setenv("PATH", str(tmp_path))
        assert cards.missing_tools() == "a C compiler (package gcc)"
