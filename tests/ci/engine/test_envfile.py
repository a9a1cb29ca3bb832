"""Env files: what their values come to, as a Dagger engine reads them. Nothing is built."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ci.engine import Options, Session
from ci.engine.errors import FieldError
from ci.engine.fields.dotenv import parse, value, values

from .asking import data


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    """A session whose client has one variable in its environment."""
    made = Session(workdir=tmp_path_factory.mktemp("work"), options=Options(), env={"HOST": "here"})
    yield made
    made.close()


def read(session: Session, text: str, wanted: str) -> Any:
    """What the env file with this text answers."""
    return data(
        session, f'query Q($t: String!) {{file(name: ".env", contents: $t) {{asEnvFile {{{wanted}}}}}}}', t=text
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A=1\nB=\n\n  \nexport   C=3\nexportable=yes", {"A": "1", "B": "", "C": "3", "exportable": "yes"}),
        ("A=a   b # c\nB=!@#$%^&*()", {"A": "a   b # c", "B": "!@#$%^&*()"}),
        ("A=\"a   b\" c   d # e\nB='x'", {"A": "a   b c d", "B": "x"}),
        (r"A=a\ b\ c" + "\n" + r'B="\"\$A\" \n"', {"A": "a b c", "B": r'"$A" \n'}),
        ("B=$A-b\nA=1\nC=${A}c", {"A": "1", "B": "1-b", "C": "1c"}),
        ("A=dog\nB=hello, nice '$A'", {"A": "dog", "B": "hello, nice $A"}),
        ("A='x  y'\nB=$A/z\nC=\"$A/z\"", {"A": "x  y", "B": "x y/z", "C": "x  y/z"}),
        ('A=${NONE:-d}\nB=${A:-e}\nC="${NONE:-$A f}"\nD=${A:+yes}', {"A": "d", "B": "d", "C": "d f", "D": "yes"}),
        ('A=["ga", 4]\nB={"n": "J W", "a": 5}', {"A": "[ga, 4]", "B": "{n: J W, a: 5}"}),
        ("A=1\nB=2\nA=3", {"A": "3", "B": "2"}),
        ("# c\nA=1", {"# c": "", "A": "1"}),
    ],
)
def test_values_are_read_as_the_engine_reads_them(text: str, expected: dict[str, str]) -> None:
    """Plain values as they are; with a quote, a backslash or a variable in it, a value is shell words."""
    assert values(parse(text)) == expected


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("A=$NONE", "A: NONE: unbound variable"),
        ("E=\nA=$E", "A: E: unbound variable"),
        ("A=$B\nB=$C\nC=$A", "A: B: unbound variable"),
        ("A=1\nA=$A-suffix", "A: A: unbound variable"),
        ("A='x", "parse error: \"A='x\": 1:3: reached EOF without closing quote '"),
        ('A="x $(id)"', "$( in a value of an env file needs a Dagger engine"),
        ("A='x'; B=1", "; in a value of an env file needs a Dagger engine"),
    ],
)
def test_a_value_that_comes_to_nothing_is_told(text: str, reason: str) -> None:
    """A variable that is not there, a circle, an open quote; what only a shell could do is refused."""
    with pytest.raises(FieldError) as told:
        values(parse(text))
    assert told.value.message.startswith(reason)


@given(st.dictionaries(st.from_regex(r"[A-Z_][A-Z0-9_]{0,5}", fullmatch=True), st.text(st.characters(codec="ascii"))))
def test_a_value_in_single_quotes_is_itself(wanted: dict[str, str]) -> None:
    """Whatever is in it, but for a quote and the ends of lines."""
    wanted = {n: v.replace("'", "").replace("\n", "") for n, v in wanted.items()}
    text = "".join(f"{n}='{v}'\n" for n, v in wanted.items())
    assert values(parse(text)) == wanted
    assert all(value(parse(text), n) == v for n, v in wanted.items())


def test_its_fields_answer_raw_and_worked_out(session: Session) -> None:
    """By name in order, a missing one as empty; of what is not in the file the client's own variable counts."""
    text = 'B="$A $HOST"\nA=1\n'
    assert read(session, text, "variables {name value}") == [
        {"name": "A", "value": "1"},
        {"name": "B", "value": "1 here"},
    ]
    raw = read(session, text, 'variables(raw: true) {value} b: get(name: "B") r: get(name: "B", raw: true)')
    written = '"$A $HOST"'
    assert raw == {"variables": [{"value": "1"}, {"value": written}], "b": "1 here", "r": written}
    assert read(session, text, 'a: exists(name: "A") z: exists(name: "Z") g: get(name: "Z")') == {
        "a": True, "z": False, "g": "",
    }  # fmt: skip


def test_it_is_changed_and_written(session: Session) -> None:
    """A variable set again keeps its place; the file has what was written, not what it comes to."""
    steps = 'withVariable(name: "A", value: "2") {withoutVariable(name: "C") {asFile {name contents}}}'
    assert read(session, 'A=1\nB="$A"\nC=3\n', steps) == {"name": ".env", "contents": 'A=2\nB="$A"\n'}


@pytest.mark.parametrize("prefix", ["MY_APP_", "my-app", "myApp"])
def test_a_namespace_is_found_however_it_is_spelled(session: Session, prefix: str) -> None:
    """The others are gone, and still there to be referred to."""
    text = "MY_APP_TOKEN=$FOO/t\nMY_APP_NAME=hello\nFOO=bar\n"
    found = read(session, text, f'namespace(prefix: "{prefix}") {{variables {{name value}} exists(name: "FOO")}}')
    assert found["variables"] == [{"name": "NAME", "value": "hello"}, {"name": "TOKEN", "value": "bar/t"}]
    assert found["exists"] is False


def test_a_container_takes_what_the_variables_come_to(session: Session, tmp_path: Path) -> None:
    """In order of their names, over its own."""
    made = 'envFile {withVariable(name: "Y", value: "\\"a b\\"") {withVariable(name: "X", value: "$Y!") {id}}}'
    source = data(session, f"{{{made}}}")
    query = f'{{container {{withEnvFileVariables(source: "{source}") {{envVariables {{name value}}}}}}}}'
    assert data(session, query) == [{"name": "X", "value": "a b!"}, {"name": "Y", "value": "a b"}]
