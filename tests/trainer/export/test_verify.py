"""The judge itself: what passes and what does not, on a llama.cpp that says what it is told to."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch

from trainer import tiny
from trainer.data.formats import Message
from trainer.data.template import ChatTokenizer
from trainer.export.errors import ExportError
from trainer.export.llama import Step, align
from trainer.export.quantise import Kind
from trainer.export.verify import BOUNDS, Figures, verify

VOCABULARY = 1024
CHATS = [(Message("user", f"Question {n}"),) for n in range(4)]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> ChatTokenizer:
    """The tokenizer of the tiny base."""
    return ChatTokenizer.load(tiny.make_tokenizer(tmp_path_factory.mktemp("tokenizer") / "base"))


def reference(ids: Sequence[int]) -> torch.Tensor:
    """A model that always prefers token 20 (0.7) to 21 (0.2), and spreads the rest."""
    chances = torch.full((VOCABULARY,), 0.1 / (VOCABULARY - 2))
    chances[20], chances[21] = 0.7, 0.2
    return chances.log().expand(len(ids), VOCABULARY)


class Scripted:
    """llama.cpp as a script: tokens by the real tokenizer, answers by `token` and `shift` of its log-probability."""

    def __init__(self, tokenizer: ChatTokenizer, token: int = 20, shift: float = 0.0, steps: int = 10) -> None:
        self.tokenizer, self.token, self.shift, self.steps = tokenizer, token, shift, steps

    def tokenize(self, text: str) -> list[int]:
        return [2, *self.tokenizer.tokenizer.encode(text, add_special_tokens=False).ids]

    def render(self, messages: Sequence[Any]) -> str:
        return self.tokenizer.render([Message(m["role"], m["content"]) for m in messages], generation=True)

    def follow(self, ids: Sequence[int], tokens: int, top: int) -> list[Step]:
        chances = {20: math.log(0.7) + self.shift, 21: math.log(0.2)}
        return [Step(self.token, chances)] * self.steps


def judge(llama: Scripted, kind: Kind = Kind.F16) -> Figures:
    return verify(llama, reference, llama.tokenizer, CHATS, BOUNDS[kind])


class TestPassing:
    def test_equal(self, tokenizer: ChatTokenizer) -> None:
        """A file that chooses and weighs as the reference does has no problems, and the counts say why."""
        found = judge(Scripted(tokenizer))
        assert found.problems == []
        assert (found.prompts, found.same_tokens, found.same_template, found.same_answers) == (4, 4, 4, 4)
        assert (found.steps, found.same_choice, found.ties) == (40, 40, 0)
        assert found.mean_divergence == pytest.approx(0, abs=1e-6)

    def test_steps_without_probabilities(self, tokenizer: ChatTokenizer) -> None:
        """A step that llama.cpp does not weigh counts by its choice, and does not thin out the mean divergence."""

        class Half(Scripted):
            def follow(self, ids: Sequence[int], tokens: int, top: int) -> list[Step]:
                return [Step(20, {}), *super().follow(ids, tokens, top)]

        found = judge(Half(tokenizer, shift=-0.2))
        assert (found.steps, found.same_choice, found.measured) == (44, 44, 40)
        assert found.mean_divergence == judge(Scripted(tokenizer, shift=-0.2)).mean_divergence
        assert judge(Half(tokenizer, steps=0)).problems  # nothing weighed at all is no proof


class TestAlignment:
    """llama.cpp reports no probabilities at a byte inside a character: what it does report must not slide."""

    @pytest.mark.parametrize(
        ("tokens", "reported", "expected"),
        [
            ([7, 8, 9], [7, 8, 9], [7, 8, 9]),
            ([7, 240, 159, 8, 9], [7, 8, 9], [7, None, None, 8, 9]),
            ([7, 7, 240, 7], [7, 7, 7], [7, 7, None, 7]),
            ([227, 129, 129, 9], [129, 9], [None, None, None, 9]),  # either 129 may be the last byte: neither counts
            ([], [], []),
        ],
    )
    def test_each_in_its_place(self, tokens: list[int], reported: list[int], expected: list[int | None]) -> None:
        """A step keeps its probabilities where only one place fits, and loses them where two do."""
        found = align(tokens, [Step(token, {token: -0.5}) for token in reported])
        assert [step.token for step in found] == tokens
        assert [next(iter(step.logprobs), None) for step in found] == expected

    def test_something_else(self) -> None:
        """Probabilities of a token that was not generated are an error, not a comparison."""
        with pytest.raises(ExportError, match="token 9, which is not in its answer"):
            align([7, 8], [Step(9, {9: 0.0})])


class TestFailing:
    def test_another_choice(self, tokenizer: ChatTokenizer) -> None:
        """A token that the reference finds clearly worse is a disagreement of every kind of file."""
        for kind in Kind:
            found = judge(Scripted(tokenizer, token=21), kind)
            assert found.same_choice == found.same_answers == 0
            assert any("Next tokens agree at 0.0%" in problem for problem in found.problems)

    def test_other_chances(self, tokenizer: ChatTokenizer) -> None:
        """The same choice with another certainty breaks the bounds on divergence and difference."""
        found = judge(Scripted(tokenizer, shift=-0.2))
        assert found.same_choice == found.steps
        rest = 0.1 * math.log(0.1 / (0.8 - 0.7 * math.exp(-0.2)))
        assert found.mean_divergence == pytest.approx(0.7 * 0.2 + rest, abs=1e-4)
        assert [p.split()[0] for p in found.problems] == ["Mean", "A"]
        assert found.largest_difference == pytest.approx(0.2, abs=1e-4)

    def test_a_file_that_prefers_something_else(self, tokenizer: ChatTokenizer) -> None:
        """Certainty about what the reference finds unlikely diverges, although each reported term is negative."""

        class Certain(Scripted):
            def follow(self, ids: Sequence[int], tokens: int, top: int) -> list[Step]:
                return [Step(500, {500: math.log(0.9)})] * 5

        assert judge(Certain(tokenizer)).mean_divergence > 1

    def test_not_a_number(self, tokenizer: ChatTokenizer) -> None:
        """A model that computes NaN fails; no comparison with NaN may look like success."""
        found = judge(Scripted(tokenizer, shift=math.nan))
        assert any("divergence" in problem for problem in found.problems)

    def test_no_answer(self, tokenizer: ChatTokenizer) -> None:
        """A file that says nothing at all fails."""
        assert judge(Scripted(tokenizer, steps=0)).problems

    def test_other_tokens(self, tokenizer: ChatTokenizer) -> None:
        """A prompt that splits differently is shown with the place where it does."""

        class Splits(Scripted):
            def tokenize(self, text: str) -> list[int]:
                ids = super().tokenize(text)
                return [*ids[:1], 32, 33, *ids[2:]]

        found = judge(Splits(tokenizer))
        assert found.same_tokens == 0
        assert "Token 1 of a prompt differs: [4] in training, [32] in the file" in found.problems[0]

    def test_double_bos(self, tokenizer: ChatTokenizer) -> None:
        """A second BOS is a difference like any other."""

        class Twice(Scripted):
            def tokenize(self, text: str) -> list[int]:
                return [2, *super().tokenize(text)]

        assert judge(Twice(tokenizer)).same_tokens == 0

    def test_other_template(self, tokenizer: ChatTokenizer) -> None:
        """A chat template in the file that asks otherwise is found although the tokens agree."""

        class Asks(Scripted):
            def render(self, messages: Sequence[Any]) -> str:
                return super().render(messages).replace("user", "human")

        found = judge(Asks(tokenizer))
        assert (found.same_tokens, found.same_template) == (4, 0)
        assert "the chat template in the file" in found.problems[0]

    def test_modelfile_of_another_family(self, tokenizer: ChatTokenizer) -> None:
        """A model trained on other turns than Gemma's gets no Modelfile that asks it as Gemma."""
        source = tokenizer.source.replace("'<start_of_turn>' +", "'<turn>' +")
        changed = ChatTokenizer(tokenizer.folder, tokenizer.tokenizer, source, tokenizer.tokens)
        found = judge(Scripted(changed))
        assert found.same_template == 0
        assert "the Modelfile's TEMPLATE" in found.problems[0]


def test_bounds_loosen_with_the_type() -> None:
    """A smaller file may differ by more, never by less."""
    order = [BOUNDS[kind] for kind in (Kind.F16, Kind.Q8_0, Kind.Q4_K_M)]
    for tight, loose in itertools.pairwise(order):
        assert tight.agreement >= loose.agreement
        assert tight.answers >= loose.answers
        assert tight.divergence < loose.divergence
        assert tight.tie < loose.tie
