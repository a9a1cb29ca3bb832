"""Reading, formats, masks, packing and splitting of training data."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.data import EXAMPLES, check, dataset, formats, packing, preview, reader
from trainer.data.formats import Example, Message
from trainer.data.template import ChatTokenizer
from trainer.errors import DataError
from trainer.settings import DataConfig


def write(path: Path, rows: Sequence[object]) -> Path:
    path.write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in rows))
    return path


def chat(question: str = "Hi", answer: str = "Hello") -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


def settings(path: Path, **changes: Any) -> DataConfig:
    return DataConfig(**{"path": path, "max_length": 64, "packing": False, "eval_fraction": 0.0, **changes})


def learned_text(tokenizer: ChatTokenizer, example: Example) -> str:
    (row,) = tokenizer.encode([example])
    assert not isinstance(row, formats.BadRow), row
    return tokenizer.tokenizer.decode(row.ids[row.supervised].tolist(), skip_special_tokens=False)


class TestReader:
    def test_every_bad_line_is_named_up_to_twenty(self, tmp_path: Path, tokenizer: ChatTokenizer) -> None:
        """All problems of a file come at once with their lines; beyond twenty there is a count."""
        path = write(tmp_path / "d.jsonl", [chat(), "{bad", "[1]", "", *["nope"] * 30])
        with pytest.raises(DataError) as caught:
            dataset.prepare(settings(path), tokenizer, 0)
        problems = caught.value.problems
        assert problems[0].startswith("d.jsonl line 2: Not JSON, column 2")
        assert problems[1] == "d.jsonl line 3: Not an object but a list. Write one {...} a line."
        assert problems[2].startswith("d.jsonl line 5:")
        assert len(problems) == reader.LIMIT + 1
        assert problems[-1] == "... and 12 more problems like these."

    def test_bytes_that_are_no_text(self, tmp_path: Path) -> None:
        """A line in another encoding is named, a byte order mark is not minded."""
        path = tmp_path / "d.jsonl"
        path.write_bytes(b"\xef\xbb\xbf" + json.dumps(chat()).encode() + b'\n{"text": "\xff"}\n')
        problems = reader.Problems(path)
        assert [row.line for row in reader.read_rows(path, problems)] == [1]
        assert problems.messages == ["d.jsonl line 2: Not UTF-8, byte 10. Save the file as UTF-8."]

    def test_half_a_character(self, tmp_path: Path) -> None:
        """An escape that stands for half a character is told by its line: no tokenizer takes it."""
        path = tmp_path / "d.jsonl"
        path.write_text('{"text": "\\ud83d\\ude00 whole"}\n{"text": "half \\ud83d"}\n')
        problems = reader.Problems(path)
        assert len(reader.read_rows(path, problems)) == 1
        assert problems.messages[0].startswith("d.jsonl line 2: Half a character: an escape \\ud800")

    def test_missing_empty_and_whole_documents(self, tmp_path: Path) -> None:
        """A missing file, an empty one, and a JSON document instead of lines each say what to do."""
        with pytest.raises(DataError, match="No such file or directory"):
            reader.read_rows(tmp_path / "none", reader.Problems(tmp_path / "none"))
        path = write(tmp_path / "d.jsonl", ["", ""])
        with pytest.raises(DataError, match="the file is empty"):
            reader.read_rows(path, reader.Problems(path))
        path.write_text('[\n{"a": 1},\n{"b": 2}\n]\n')
        problems = reader.Problems(path)
        reader.read_rows(path, problems)
        assert "one JSON document" in problems.messages[0]

    @given(st.lists(st.binary(max_size=40), max_size=8))
    def test_any_bytes_are_read_or_named(self, lines: list[bytes]) -> None:
        """No content of a file makes the reader fail in any other way."""
        import tempfile

        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "d.jsonl"
            path.write_bytes(b"\n".join(lines))
            problems = reader.Problems(path)
            try:
                rows = reader.read_rows(path, problems)
            except DataError as error:
                assert "empty" in str(error)  # noqa: PT017 - either outcome is right
            else:
                filled = [i for i, line in enumerate(path.read_bytes().split(b"\n"), 1) if line.strip()]
                assert len(rows) + problems.count == len(filled)


class TestFormats:
    @pytest.mark.parametrize(
        ("name", "row", "expected"),
        [
            ("messages", chat("q", "a"), [("user", "q"), ("assistant", "a")]),
            ("prompt-completion", {"prompt": "q", "completion": "a"}, [("user", "q"), ("assistant", "a")]),
            (
                "alpaca",
                {"instruction": "q", "input": "x", "output": "a"},
                [("user", "q\n\nx"), ("assistant", "a")],
            ),
            (
                "sharegpt",
                {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}], "system": "s"},
                [("system", "s"), ("user", "q"), ("assistant", "a")],
            ),
        ],
    )
    def test_each_format_is_told_and_read(
        self, name: str, row: dict[str, Any], expected: list[tuple[str, str]]
    ) -> None:
        """The keys give the format; every format becomes the same kind of turns."""
        rows = [reader.Row(1, row)]
        problems = reader.Problems(Path("d"))
        assert formats.detect(rows) == name
        (example,) = formats.parse(rows, name, problems)
        assert [(m.role, m.content) for m in example.messages] == expected
        assert not problems.count

    def test_plain_text(self) -> None:
        """A row of text stays text."""
        rows = [reader.Row(3, {"text": "abc"})]
        assert formats.detect(rows) == "text"
        assert formats.parse(rows, "text", reader.Problems(Path("d"))) == [Example(3, text="abc")]

    @pytest.mark.parametrize(
        ("row", "message"),
        [
            ({"messages": []}, "'messages' is empty"),
            ({"messages": [{"role": "king", "content": "x"}]}, "Turn 1 has the role 'king'"),
            ({"messages": [{"role": "user", "content": "x"}]}, "No assistant turn"),
            ({"messages": [{"role": "assistant", "content": "x"}]}, "begins with the assistant"),
            ({"messages": [*chat()["messages"], {"role": "assistant", "content": "x"}]}, "in a row"),
            ({"messages": [*chat()["messages"], {"role": "system", "content": "x"}]}, "inside the chat"),
            ({"messages": [{"role": "user", "content": [{"type": "image"}]}]}, "other than text"),
            (chat("q", "  "), r"Turn 2 \(assistant\) has no 'content'"),
            ({"prompt": "x"}, "No 'messages'|'messages' is no list"),
        ],
    )
    def test_rows_that_do_not_fit(self, row: dict[str, Any], message: str) -> None:
        """Each kind of bad row is named with what to do."""
        problems = reader.Problems(Path("d"))
        assert formats.parse([reader.Row(7, row)], "messages", problems) == []
        assert problems.messages[0].startswith("d line 7: ")
        assert re.search(message, problems.messages[0])

    def test_unknown_keys(self, tmp_path: Path, tokenizer: ChatTokenizer) -> None:
        """Rows of no known format list the formats there are."""
        with pytest.raises(DataError, match=r"Unknown format, keys 'a'.*sharegpt"):
            dataset.prepare(settings(write(tmp_path / "d.jsonl", [{"a": 1}])), tokenizer, 0)


class TestMask:
    def test_only_the_assistants_words_and_its_end_of_turn(self, tokenizer: ChatTokenizer) -> None:
        """Of a chat with two answers, both are learned through their end mark, and nothing else."""
        example = Example(
            1,
            (
                Message("user", "Which port?"),
                Message("assistant", "Port 8000."),
                Message("user", "And Grafana?"),
                Message("assistant", "3000"),
            ),
        )
        assert learned_text(tokenizer, example) == "Port 8000.<end_of_turn>3000<end_of_turn>"

    def test_a_refused_system_turn_joins_the_first_question(self, tokenizer: ChatTokenizer) -> None:
        """Gemma-2 has no system role: the text is kept, in the first user turn, and not learned."""
        example = Example(1, (Message("system", "Be brief."), Message("user", "Q"), Message("assistant", "A")))
        text, _ = tokenizer.spans(example.messages)
        assert "<start_of_turn>user\nBe brief.\n\nQ<end_of_turn>" in text
        assert learned_text(tokenizer, example) == "A<end_of_turn>"

    def test_plain_text_is_learned_whole_with_its_end(self, tokenizer: ChatTokenizer) -> None:
        """Every token after the beginning mark, and the end mark, so that a text ends."""
        assert learned_text(tokenizer, Example(1, text="abc def")) == "abc def<eos>"

    def test_a_template_without_a_special_end_is_refused(self, tokenizer: ChatTokenizer) -> None:
        """A model that never learns to stop is the commonest fault of fine-tuning: an error, not a warning."""
        source = (
            "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
            "{% if add_generation_prompt %}assistant: {% endif %}"
        )
        plain = dataclasses.replace(tokenizer, source=source)
        (row,) = plain.encode([Example(1, (Message("user", "Q"), Message("assistant", "A")))])
        assert isinstance(row, formats.BadRow)
        assert "no special token" in str(row)

    def test_a_template_that_rewrites_the_past_is_refused(self, tokenizer: ChatTokenizer) -> None:
        """Where a longer chat does not begin with the shorter one's text, the mask would be a guess."""
        source = "{{ messages | length }}{% for m in messages %}{{ m.content }}<end_of_turn>{% endfor %}"
        odd = dataclasses.replace(tokenizer, source=source)
        (row,) = odd.encode([Example(1, (Message("user", "Q"), Message("assistant", "A")))])
        assert isinstance(row, formats.BadRow)
        assert "rewrites earlier turns" in str(row)

    def test_generation_marks_are_understood(self, tokenizer: ChatTokenizer) -> None:
        """Templates with {% generation %} marks give the same mask as without."""
        source = (
            "{{ bos_token }}{% for m in messages %}{% if m.role == 'assistant' %}<start_of_turn>model\n"
            "{% generation %}{{ m.content }}<end_of_turn>{% endgeneration %}{{ '\n' }}{% else %}"
            "<start_of_turn>user\n{{ m.content }}<end_of_turn>{{ '\n' }}{% endif %}{% endfor %}"
            "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
        )
        marked = dataclasses.replace(tokenizer, source=source)
        example = Example(1, (Message("user", "Q"), Message("assistant", "A b")))
        assert learned_text(marked, example) == "A b<end_of_turn>"

    @given(
        st.lists(
            st.text(alphabet=st.characters(codec="utf-8", exclude_characters="<"), min_size=1, max_size=20).filter(
                lambda t: t.strip()
            ),
            min_size=2,
            max_size=4,
        )
    )
    def test_any_answer_comes_back_from_its_mask(self, tokenizer: ChatTokenizer, texts: list[str]) -> None:
        """Whatever is said, in any script, decoding the learned tokens gives the trimmed answers and their ends."""
        turns = [t for text in texts for t in (Message("user", "q"), Message("assistant", text))]
        expected = "".join(f"{text.strip()}<end_of_turn>" for text in texts)
        assert learned_text(tokenizer, Example(1, tuple(turns))) == expected


class TestPacking:
    def test_best_fit(self) -> None:
        """Each row goes where it leaves the least room."""
        assert packing.pack([5, 5, 3, 2], 8) == [(0, 2), (1, 3)]

    def test_a_row_that_cannot_fit(self) -> None:
        """Too long a row is an error of the caller."""
        with pytest.raises(ValueError, match="row 1 has 9 tokens"):
            packing.pack([1, 9], 8)

    @given(st.lists(st.integers(1, 32), max_size=60))
    def test_nothing_lost_nothing_too_long_few_bins(self, lengths: list[int]) -> None:
        """Every row is in one group, no group is too long, and no two groups could have been one."""
        groups = packing.pack(lengths, 32)
        assert sorted(i for g in groups for i in g) == list(range(len(lengths)))
        totals = sorted(sum(lengths[i] for i in g) for g in groups)
        assert all(t <= 32 for t in totals)
        assert all(a + b > 32 for a, b in pairwise(totals))


class TestDataset:
    def test_split_follows_content_not_place(self, tmp_path: Path, tokenizer: ChatTokenizer) -> None:
        """A row stays on its side when others come or go, so that no evaluation row was trained on before."""
        rows = [chat(f"question {i}", f"answer {i}") for i in range(60)]
        one = dataset.prepare(settings(write(tmp_path / "a.jsonl", rows), eval_fraction=0.3), tokenizer, 0)
        two = dataset.prepare(settings(write(tmp_path / "b.jsonl", rows[::-1][:40]), eval_fraction=0.3), tokenizer, 0)
        held_one = {one.examples[i].messages for g in one.eval for i in g}
        held_two = {two.examples[i].messages for g in two.eval for i in g}
        assert 5 < len(held_one) < 35
        assert held_two == {e.messages for e in two.examples} & held_one

    def test_truncation_is_counted_and_never_silent(self, tmp_path: Path, tokenizer: ChatTokenizer) -> None:
        """A cut row counts; a row whose answer was cut off whole is an error with the two numbers."""
        path = write(tmp_path / "d.jsonl", [chat("q", "word " * 100)])
        assert dataset.prepare(settings(path), tokenizer, 0).facts.truncated == 1
        path = write(tmp_path / "d.jsonl", [chat(), chat("word " * 100, "a")])
        with pytest.raises(DataError, match=r"line 2: Nothing left to learn: .* token \d{3}, rows are cut at 64"):
            dataset.prepare(settings(path), tokenizer, 0)

    def test_order_is_a_function_of_seed_and_epoch(self, tokenizer: ChatTokenizer) -> None:
        """The same epoch has the same order in any process; another epoch has another one."""
        data = dataset.prepare(settings(EXAMPLES), tokenizer, 3)
        assert data.order(1).tolist() == data.order(1).tolist()
        assert data.order(1).tolist() != data.order(2).tolist()
        assert sorted(data.order(5).tolist()) == list(range(64))

    def test_the_digest_sees_what_the_model_sees(self, tmp_path: Path, tokenizer: ChatTokenizer) -> None:
        """White space between JSON's words changes nothing; one character of an answer does."""
        plain = dataset.prepare(settings(write(tmp_path / "a.jsonl", [chat("q", "abc")])), tokenizer, 0)
        spaced = dataset.prepare(
            settings(
                write(tmp_path / "b.jsonl", [json.dumps(chat("q", "abc"), indent=None, separators=(" ,", " : "))])
            ),
            tokenizer,
            0,
        )
        other = dataset.prepare(settings(write(tmp_path / "c.jsonl", [chat("q", "abd")])), tokenizer, 0)
        assert plain.digest == spaced.digest != other.digest

    def test_duplicates_are_counted(self, tmp_path: Path, tokenizer: ChatTokenizer) -> None:
        """Equal rows count as duplicates, whatever their format's spelling."""
        path = write(tmp_path / "d.jsonl", [chat(), chat(), chat("Hi", "Hello ")])
        assert dataset.prepare(settings(path), tokenizer, 0).facts.duplicates == 1

    def test_everything_held_out_is_an_error(self, tmp_path: Path, tokenizer: ChatTokenizer) -> None:
        """Nothing to train on says so."""
        with pytest.raises(DataError, match="No training rows"):
            dataset.prepare(settings(write(tmp_path / "d.jsonl", [chat()]), eval_fraction=0.999), tokenizer, 0)


class TestShowing:
    def test_preview_marks_what_is_learned(self, tokenizer: ChatTokenizer) -> None:
        """Without colour, what is learned stands between quotation marks."""
        (row,) = tokenizer.encode([Example(1, (Message("user", "Q"), Message("assistant", "A")))])
        assert not isinstance(row, formats.BadRow)
        text = preview.preview(row, tokenizer, colour=False).plain
        assert text.endswith("<start_of_turn>model\n«A<end_of_turn>»\n")
        assert "«" not in preview.preview(row, tokenizer, colour=True).plain

    def test_report_counts(self, tokenizer: ChatTokenizer) -> None:
        """The report's numbers are the file's."""
        data = dataset.prepare(settings(EXAMPLES), tokenizer, 0)
        text = "\n".join(check.report(data.facts, 64, len(data.train)))
        assert "rows         64: 64 to train on, 0 held out" in text
        learned = sum(int(np.sum(r.supervised)) for r in data.rows)
        assert f"of which {learned} (" in text

    def test_histogram_bins_double(self) -> None:
        """Each length is in exactly one bin."""
        lines = list(check.histogram([1, 16, 17, 32, 33, 100]))
        assert [line.split()[0] for line in lines] == ["1-16", "17-32", "33-64", "65-128"]
        assert sum(int(line.split()[-1]) for line in lines) == 6
