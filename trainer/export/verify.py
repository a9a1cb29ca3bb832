"""Proof that a GGUF file answers as the trained model does.

    verify(llama, reference, tokenizer, chats, bounds) -> Figures

For each chat: the prompt as training rendered it must become the same token ids in llama.cpp, the file's own chat
template and the Modelfile's must render the same text, and each step of llama.cpp's greedy answer is compared with
the reference's distribution at that place. The reference reads llama.cpp's answer, so one forward pass compares all
steps, and the greedy answers are equal exactly when every step agrees.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from . import modelfile
from .errors import ExportError
from .quantise import Kind

if TYPE_CHECKING:
    import torch

    from trainer.data.formats import Message
    from trainer.data.template import ChatTokenizer

    from .llama import Step

TOKENS = 24
"""Steps of each answer that are compared."""
TOP = 64
"""Likeliest tokens of each step whose probabilities llama.cpp reports."""
LIKELY = math.log(0.01)
"""Tokens below one in a hundred say nothing about an answer; their log-probabilities are not bounded."""


@dataclass(frozen=True)
class Bounds:
    """What a file may differ by and still pass. Natural logarithms throughout."""

    agreement: float
    """Smallest share of steps at which both choose the same token, or tokens that are a `tie` for the reference."""
    tie: float
    """Two tokens whose log-probabilities differ by less are equally good choices."""
    answers: float
    """Smallest share of answers that agree at every step."""
    divergence: float
    """Largest mean KL divergence of a step, reference to file."""
    difference: float | None = None
    """Largest difference in the log-probability of any likely token; None: reported, not bounded."""


BOUNDS = {
    Kind.F16: Bounds(agreement=1.0, tie=0.02, answers=1.0, divergence=1e-4, difference=0.1),
    Kind.Q8_0: Bounds(agreement=0.99, tie=0.1, answers=0.9, divergence=5e-3, difference=None),
    Kind.Q4_K_M: Bounds(agreement=0.9, tie=0.2, answers=0.6, divergence=0.1, difference=None),
}
"""Chosen above what the tiny models and the published perplexities of these types show (docs/export.md)."""

COARSE = Bounds(agreement=0.97, tie=0.15, answers=0.85, divergence=1e-2, difference=None)
"""For F16 against a reference that computes in bf16 because fp32 does not fit: its own noise is larger."""


@dataclass
class Figures:
    """What was found. Counts and natural logarithms."""

    prompts: int = 0
    same_tokens: int = 0
    same_template: int = 0
    steps: int = 0
    same_choice: int = 0
    ties: int = 0
    measured: int = 0
    """Steps with probabilities to compare; the others, inside a character of several bytes, only have a choice."""
    same_answers: int = 0
    mean_divergence: float = 0.0
    largest_difference: float = 0.0
    problems: list[str] = field(default_factory=list)

    @property
    def agreement(self) -> float:
        """Share of steps with the same choice or a tie."""
        return (self.same_choice + self.ties) / max(1, self.steps)

    def as_dict(self) -> dict[str, Any]:
        """For export.json."""
        return {**asdict(self), "agreement": self.agreement}

    def line(self) -> str:
        """One line for a person."""
        return (
            f"{self.same_tokens} of {self.prompts} prompts tokenised alike, {self.agreement:.1%} of {self.steps} "
            f"steps and {self.same_answers} of {self.prompts} answers agree, mean KL {self.mean_divergence:.1e}"
        )


class Asked(Protocol):
    """What is asked of llama.cpp (see llama.Llama)."""

    def tokenize(self, text: str) -> list[int]: ...
    def render(self, messages: Sequence[Any]) -> str: ...
    def follow(self, ids: Sequence[int], tokens: int, top: int) -> list[Step]: ...


Reference = Callable[[Sequence[int]], "torch.Tensor"]
"""Token ids [n] -> log-probabilities of the next token at each place, fp32 [n, vocabulary]."""


def verify(
    llama: Asked,
    reference: Reference,
    tokenizer: ChatTokenizer,
    chats: Sequence[Sequence[Message]],
    bounds: Bounds,
    *,
    with_modelfile: bool = True,
    progress: Callable[[int, int], None] | None = None,
) -> Figures:
    """Compare on every chat (each ends with the user's turn). `problems` is empty when the file passes."""
    figures = Figures(prompts=len(chats))
    divergence = 0.0
    for number, chat in enumerate(chats, start=1):
        rendered = tokenizer.render(chat, generation=True)
        ids = list(tokenizer.tokenizer.encode(rendered, add_special_tokens=False).ids)
        figures.same_tokens += _same_tokens(llama, tokenizer, rendered, ids, figures.problems)
        figures.same_template += _same_template(llama, tokenizer, chat, rendered, with_modelfile, figures.problems)
        divergence += _follow(llama, reference, ids, bounds, figures)
        if progress:
            progress(number, len(chats))
    figures.mean_divergence = divergence / max(1, figures.measured)
    figures.problems += _beyond(figures, bounds)
    return figures


def _same_tokens(llama: Asked, tokenizer: ChatTokenizer, rendered: str, ids: list[int], problems: list[str]) -> bool:
    theirs = llama.tokenize(_without_bos(tokenizer, rendered))
    if theirs == ids:
        return True
    at = next((i for i, (a, b) in enumerate(zip(ids, theirs, strict=False)) if a != b), min(len(ids), len(theirs)))
    problems.append(
        f"Token {at} of a prompt differs: {ids[at : at + 1]} in training, {theirs[at : at + 1]} in the file "
        f"({len(ids)} and {len(theirs)} tokens), prompt {rendered[:60]!r}. Use the base model's own tokenizer files."
    )
    return False


def _same_template(
    llama: Asked,
    tokenizer: ChatTokenizer,
    chat: Sequence[Message],
    rendered: str,
    with_modelfile: bool,
    problems: list[str],
) -> bool:
    messages = [{"role": m.role, "content": m.content} for m in chat]
    wanted = _without_bos(tokenizer, rendered)
    if chat[0].role == "system" and not _takes_system(tokenizer):
        theirs = wanted  # the template refuses system prompts by design; who serves the file folds them in
    else:
        try:
            theirs = _without_bos(tokenizer, llama.render(messages))
        except ExportError as error:
            problems.append(f"The chat template in the file fails: {error}")
            return False
    said = modelfile.prompt(messages) if with_modelfile else wanted
    for found, where in ((theirs, "the chat template in the file"), (said, "the Modelfile's TEMPLATE")):
        if found != wanted:
            problems.append(
                f"Prompts differ: training rendered {wanted[:80]!r}, {where} {found[:80]!r}. "
                "The model would be asked in a way it was not trained on."
            )
            return False
    return True


def _takes_system(tokenizer: ChatTokenizer) -> bool:
    return "System role not supported" not in tokenizer.source


def _without_bos(tokenizer: ChatTokenizer, text: str) -> str:
    return text.removeprefix(tokenizer.tokens.get("bos_token", "<bos>"))


def _follow(llama: Asked, reference: Reference, ids: list[int], bounds: Bounds, figures: Figures) -> float:
    """Compare one answer step by step; returns the sum of its steps' KL divergences."""
    steps = llama.follow(ids, TOKENS, TOP)
    if not steps:
        figures.problems.append("llama.cpp gave no answer at all to a prompt.")
        return 0.0
    places = reference([*ids, *(step.token for step in steps)])[len(ids) - 1 : -1]
    divergence, same = 0.0, True
    for step, place in zip(steps, places, strict=True):
        chosen = float(place[step.token])
        best = float(place.max())
        figures.steps += 1
        if chosen >= best:
            figures.same_choice += 1
        elif best - chosen <= bounds.tie:
            figures.ties += 1
        else:
            same = False
        figures.measured += bool(step.logprobs)
        for token, theirs in step.logprobs.items():
            ours = float(place[token])
            if max(ours, theirs) > LIKELY:
                figures.largest_difference = max(figures.largest_difference, abs(ours - theirs))
        divergence += _divergence(place, step.logprobs)
    figures.same_answers += same
    return divergence


def _divergence(place: torch.Tensor, logprobs: Mapping[int, float]) -> float:
    """KL divergence, reference to file, with all tokens that the file does not report taken as one; NaN stays NaN.

    Without that rest the sum would be negative wherever the file prefers what the reference does not. Taking tokens
    together can only lower a divergence, so this is a lower bound of the exact one.
    """
    if not logprobs:
        return 0.0
    ours = {token: float(place[token]) for token in logprobs}
    rest_ours = max(1e-7, 1 - math.fsum(math.exp(value) for value in ours.values()))
    rest_theirs = 1 - math.fsum(math.exp(value) for value in logprobs.values())
    rest_theirs = rest_theirs if math.isnan(rest_theirs) else max(1e-7, rest_theirs)  # 1e-7: what fp32 resolves
    terms = [math.exp(value) * (value - logprobs[token]) for token, value in ours.items()]
    found = math.fsum(terms) + rest_ours * math.log(rest_ours / rest_theirs)
    return 0.0 if found < 0 else found


def _beyond(figures: Figures, bounds: Bounds) -> list[str]:
    """The bounds that the figures break, a line each. Written so that a NaN breaks a bound too."""
    answers = figures.same_answers / max(1, figures.prompts)
    found: list[str] = []
    if not figures.agreement >= bounds.agreement:
        found.append(f"Next tokens agree at {figures.agreement:.1%} of the steps, {bounds.agreement:.1%} are needed.")
    if not answers >= bounds.answers:
        found.append(f"Greedy answers agree for {answers:.1%} of the prompts, {bounds.answers:.1%} are needed.")
    if not figures.measured:
        found.append("llama.cpp gave no probabilities for any step: nothing is proved about them.")
    if not figures.mean_divergence <= bounds.divergence:
        found.append(
            f"Mean KL divergence is {figures.mean_divergence:.2e}, at most {bounds.divergence:.0e} is allowed."
        )
    if bounds.difference is not None and not figures.largest_difference <= bounds.difference:
        found.append(
            f"A likely token's log-probability differs by {figures.largest_difference:.3f}, "
            f"at most {bounds.difference} is allowed."
        )
    return found
