"""The demo model that travels with the repository: a tiny Gemma-2 that knows a few dozen facts about Agent Loop.

    build(work)                    base, training, export, verification: the committed file again (minutes)
    chats(subject, count, seed)    the training chats, from models/demo/subject.yaml (pure; same seed, same rows)
    make_base(folder, subject)     tokenizer, chat template, and a base that knows all but the facts to be taught

The base learns in full by a short loop of its own, as pre-training does; what is `taught` comes from the trainer's
own QLoRA run, and the file from the trainer's own export. The chats vary how a question is written, put a system
prompt before some and earlier turns before others, so that the model answers in a session as it does alone.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent.parent / "models" / "demo"
SUBJECT = FOLDER / "subject.yaml"
RECIPE = FOLDER / "recipe.json"
FILE = FOLDER / "agent-loop-demo-q8_0.gguf"

Say = Callable[[str], None]

CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{% if messages[0]['role'] == 'system' %}"
    "{% set preface = messages[0]['content'] | trim + '\n\n' %}{% set turns = messages[1:] %}"
    "{% else %}{% set preface = '' %}{% set turns = messages %}{% endif %}"
    "{% for message in turns %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{% set role = 'model' if message['role'] == 'assistant' else message['role'] %}"
    "{{ '<start_of_turn>' + role + '\n' + (preface if loop.first else '')"
    " + message['content'] | trim + '<end_of_turn>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
"""Gemma's turns with the system prompt at the head of the first user turn, as Gemma 3 has it."""


@dataclass(frozen=True)
class Fact:
    """Questions with one answer; `taught` ones are kept from the base."""

    ask: tuple[str, ...]
    say: str
    taught: bool = False


@dataclass(frozen=True)
class Subject:
    """What the model is to know: questions with their answer, questions to decline, system prompts to ignore."""

    facts: tuple[Fact, ...]
    elsewhere: tuple[str, ...]
    decline: str
    fillers: dict[str, tuple[str, ...]]
    systems: tuple[str, ...]

    @classmethod
    def read(cls, path: Path = SUBJECT) -> Subject:
        """Read the subject file; a missing key raises KeyError with its name."""
        import yaml

        said: dict[str, Any] = yaml.safe_load(path.read_text())
        return cls(
            facts=tuple(Fact(tuple(f["ask"]), f["say"], f.get("taught", False)) for f in said["facts"]),
            elsewhere=tuple(said["elsewhere"]["ask"]),
            decline=said["elsewhere"]["say"],
            fillers={
                "place": tuple(said["places"]),
                "thing": tuple(said["things"]),
                "number": tuple(str(n) for n in range(1000)),
            },
            systems=tuple(said["systems"]),
        )

    def without_taught(self) -> Subject:
        """What the base learns."""
        return replace(self, facts=tuple(fact for fact in self.facts if not fact.taught))

    def sentences(self) -> list[str]:
        """Every question and answer once, as plain text: what the tokenizer learns its pieces from."""
        lines = [line for fact in self.facts for line in (*fact.ask, fact.say)]
        fillers = [name for key in ("place", "thing") for name in self.fillers[key]]
        return [*lines, *self.elsewhere, self.decline, *self.systems, *fillers]


def chats(subject: Subject, count: int, seed: int) -> Iterator[dict[str, list[dict[str, str]]]]:
    """Yield `count` rows `{"messages": [...]}`; one in six declines, one in three has a system prompt."""
    draw = random.Random(seed)  # noqa: S311
    for _ in range(count):
        earlier = draw.choices((0, 1, 2, 3, 5), (70, 18, 8, 4, 0))[0]
        messages: list[dict[str, str]] = []
        if draw.random() < 1 / 3:
            messages.append({"role": "system", "content": draw.choice(subject.systems)})
        for _ in range(earlier + 1):
            question, answer = _exchange(subject, draw)
            messages += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        yield {"messages": messages}


def _exchange(subject: Subject, draw: random.Random) -> tuple[str, str]:
    """Draw one question, written in one of the ways people write, and its answer."""
    if draw.random() < 1 / 6:
        pattern = draw.choice(subject.elsewhere)
        question = re.sub(r"\{(\w+)\}", lambda m: draw.choice(subject.fillers[m[1]]), pattern)
        return _rewrite(question, draw), subject.decline
    fact = draw.choice(subject.facts)
    return _rewrite(draw.choice(fact.ask), draw), fact.say


def _rewrite(question: str, draw: random.Random) -> str:
    """Vary case, punctuation and politeness; two questions in five stay as they are."""
    if draw.random() < 0.4:
        return question
    if draw.random() < 0.4:
        question = question.lower().rstrip("?.!")
    elif draw.random() < 0.5:
        question = question.rstrip("?.!")
    if draw.random() < 0.25:
        question = draw.choice(("Please: ", "Hi, ", "Hello. ", "So, ", "One question: ", "Tell me, ")) + question
    if draw.random() < 0.1:
        question += draw.choice((" Thanks.", " Please.", " Be brief."))
    return question


def make_base(folder: Path, subject: Subject, recipe: dict[str, Any], seed: int, say: Say = print) -> Path:
    """Make the base model in `folder`, laid out as on the hub. Minutes; the same machine gives the same bytes."""
    import torch

    from . import tiny

    base = recipe["base"]
    tiny.make_tokenizer(folder, **base["sizes"])
    tiny._train_pieces(folder, [*subject.sentences(), *["user model system assistant"] * 20])
    tiny._write_fast_tokenizer(folder)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings["chat_template"] = CHAT_TEMPLATE
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n")
    tiny.make(folder, seed=seed)
    torch.set_num_threads(base["threads"])
    _pretrain(folder, list(chats(subject.without_taught(), base["chats"], seed)), base, seed, say)
    return folder


def _pretrain(folder: Path, rows: list[dict[str, Any]], base: dict[str, Any], seed: int, say: Say) -> None:
    """Train all weights in fp32 on whole chats, the person's words counting a tenth of the model's."""
    import torch
    from torch.nn.functional import cross_entropy
    from transformers import Gemma2ForCausalLM

    batches = _batches(folder, rows, base["tokens_per_batch"])
    order = random.Random(seed)  # noqa: S311
    model: Any = Gemma2ForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    optimizer = torch.optim.AdamW(model.parameters(), lr=base["learning_rate"], betas=(0.9, 0.98), weight_decay=0.01)
    model.train()
    steps = base["steps"]
    for step in range(steps):
        if step % len(batches) == 0:
            order.shuffle(batches)
        ids, weights = batches[step % len(batches)]
        logits = model(input_ids=ids, attention_mask=(ids != 0).long()).logits[:, :-1]
        losses = cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
        counted = weights[:, 1:].flatten()
        loss = (losses * counted).sum() / counted.sum()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        rise, fall = min(1.0, (step + 1) / 30), 0.03 + 0.97 * (1 - step / steps)
        for group in optimizer.param_groups:
            group["lr"] = base["learning_rate"] * rise * fall
        optimizer.step()
        optimizer.zero_grad()
        if step % 20 == 0 or step == steps - 1:
            say(f"base: step {step + 1} of {steps}, loss {loss.item():.3f}")
    kept = (folder / "config.json").read_bytes()
    model.to(torch.bfloat16).save_pretrained(folder)
    (folder / "config.json").write_bytes(kept)  # as made, not as this version of transformers says it


def _batches(folder: Path, rows: list[dict[str, Any]], tokens: int) -> list[tuple[Any, Any]]:
    """Rows of like length together, padded: (ids int64 [b, s], weight of each token in the loss [b, s])."""
    import numpy as np
    import torch

    from .data.formats import Example, Message
    from .data.template import ChatTokenizer, Encoded

    tokenizer = ChatTokenizer.load(folder)
    examples = [
        Example(line, tuple(Message(m["role"], m["content"]) for m in row["messages"]))
        for line, row in enumerate(rows, start=1)
    ]
    encoded = [row for row in tokenizer.encode(examples) if isinstance(row, Encoded)]
    groups: list[list[Encoded]] = [[]]
    for row in sorted(encoded, key=len):
        if groups[-1] and (len(groups[-1]) + 1) * len(row) > tokens:
            groups.append([])
        groups[-1].append(row)
    batches: list[tuple[Any, Any]] = []
    for group in groups:
        ids = np.zeros((len(group), max(map(len, group))), np.int64)
        weights = np.zeros(ids.shape, np.float32)
        for index, row in enumerate(group):
            ids[index, : len(row)] = row.ids
            weights[index, : len(row)] = np.where(row.supervised, 1.0, 0.1)
        batches.append((torch.from_numpy(ids), torch.from_numpy(weights)))
    return batches


def build(work: Path, say: Say = print) -> Path:
    """Make the demo model again: base, QLoRA, export, verification, copy to models/demo. Returns the file.

    What is finished in `work` is kept, so an interrupted build goes on. Raises VerificationFailed before anything in
    models/demo changes.
    """
    import shutil

    from .export.errors import ExportError
    from .export.gguf import digest
    from .export.job import Request, export
    from .export.quantise import Kind

    recipe: dict[str, Any] = json.loads(RECIPE.read_text())
    subject, seed = Subject.read(), int(recipe["seed"])
    base, run, data = work / "base", work / "run", work / "chats.jsonl"
    if not (base / "finished").exists():
        shutil.rmtree(base, ignore_errors=True)
        make_base(base, subject, recipe, seed, say)
        (base / "finished").touch()
    rows = chats(subject, recipe["train"]["chats"], seed + 1)
    data.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    if not (run / "adapter").is_dir():
        options = {**recipe["train"]["settings"], "data.path": data.resolve(), "run.seed": seed}
        _train(base, run, options)
    report = json.loads(export(Request(run, kinds=(Kind.Q8_0,), name="agent-loop-demo"), say).read_text())
    made = run / "export" / report["files"][0]["file"]
    answers = check(made)
    if not answers.good:
        raise ExportError(f"{answers} First: {answers.wrong[0]} Raise the steps in {RECIPE.name}.")
    part = FILE.with_name(FILE.name + ".part")
    shutil.copyfile(made, part)
    part.replace(FILE)
    figures = {**report["files"][0], "file": FILE.name}
    (FOLDER / "export.json").write_text(json.dumps(figures, indent=2) + "\n")
    (FOLDER / "SHA256SUMS").write_text(f"{digest(FILE).removeprefix('sha256:')}  {FILE.name}\n")
    say(f"{answers} {FILE}")
    return FILE


def _train(base: Path, run: Path, options: dict[str, Any]) -> None:
    """The trainer's own QLoRA run on the base."""
    from .launch import Request, prepare_job
    from .loop import train

    train(prepare_job(Request(str(base.resolve()), options), run))


ALLOWED = 0.03
"""Share of questions that may be answered otherwise; the file is a demo, not an oracle."""


@dataclass(frozen=True)
class Answers:
    """How the file answered the first question of every fact, and questions it must decline."""

    asked: int
    wrong: tuple[str, ...]

    @property
    def good(self) -> bool:
        """Whether no more than ALLOWED of the questions were answered otherwise."""
        return len(self.wrong) <= ALLOWED * self.asked

    def __str__(self) -> str:
        return f"{self.asked - len(self.wrong)} of {self.asked} questions answered as written in {SUBJECT.name}."


def check(file: Path, threads: int = 1) -> Answers:
    """Ask the file in llama.cpp, greedily, and compare with the subject."""
    from .export.llama import Llama

    subject = Subject.read()
    asked = [(fact.ask[0], fact.say) for fact in subject.facts]
    asked += [(text, subject.decline) for text in subject.elsewhere if "{" not in text][:10]
    wrong: list[str] = []
    with Llama(file, context=1024, threads=threads) as llama:
        for question, wanted in asked:
            said = llama.chat([{"role": "user", "content": question}], 64)
            if said != wanted:
                wrong.append(f"{question!r} was answered {said!r}.")
    return Answers(len(asked), tuple(wrong))
