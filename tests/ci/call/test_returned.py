"""What a function returned against what it says: what passes, what is refused, in words that name both."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ci.engine.module.errors import FunctionFailed
from ci.engine.module.returned import returned
from ci.engine.module.types import LIST, OBJECT, Function, TypeRef

OWN = frozenset({"Report"})
TEXT, NUMBER, FRACTION, TRUTH = (TypeRef(kind) for kind in ("STRING", "INTEGER", "FLOAT", "BOOLEAN"))


def listed(element: TypeRef) -> TypeRef:
    return TypeRef(LIST, element=element)


def read(value: Any, ref: TypeRef) -> Any:
    return returned(value, Function("count", ref), OWN)


@pytest.mark.parametrize(
    ("value", "ref", "wanted"),
    [
        ("many", TEXT, "many"),
        (3, NUMBER, 3),
        ("0x10", NUMBER, 16),
        (2.0, NUMBER, 2),
        (3, FRACTION, 3.0),
        ("true", TRUTH, True),
        (None, TypeRef("STRING", optional=True), None),
        ("anything", TypeRef("VOID"), None),
        (["a"], listed(TEXT), ["a"]),
        (["7"], listed(NUMBER), [7]),
        ({"a": 1}, TypeRef(OBJECT, "Report"), {"a": 1}),
        ("id", TypeRef(OBJECT, "Container"), "id"),
    ],
)
def test_what_passes(value: Any, ref: TypeRef, wanted: Any) -> None:
    got = read(value, ref)
    assert got == wanted
    assert type(got) is type(wanted)


@pytest.mark.parametrize(
    ("value", "ref", "said"),
    [
        (5, TEXT, "count gave 5, but says it gives a text"),
        ("many", NUMBER, 'count gave "many", but says it gives a whole number'),
        (1.5, NUMBER, "count gave 1.5, but says it gives a whole number"),
        (True, NUMBER, "count gave true, but says it gives a whole number"),
        (1, TRUTH, "count gave 1, but says it gives true or false"),
        (None, TEXT, "count gave null, but says it gives a text"),
        ("abc", listed(TEXT), 'count gave "abc", but says it gives a list'),
        (["a", 1], listed(TEXT), "count[1] gave 1, but says it gives a text"),
        ("id", TypeRef(OBJECT, "Report"), 'count gave "id", but says it gives Report'),
        ({"a": 1}, TypeRef(OBJECT, "Container"), 'count gave {"a": 1}, but says it gives Container'),
        ("x" * 500, NUMBER, 'count gave "' + "x" * 59 + "…"),
    ],
)
def test_what_is_refused(value: Any, ref: TypeRef, said: str) -> None:
    with pytest.raises(FunctionFailed) as caught:
        read(value, ref)
    assert said in str(caught.value)
    assert "Change what it returns or its annotation" in str(caught.value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
)
REFS = st.recursive(
    st.builds(
        TypeRef,
        st.sampled_from(["STRING", "INTEGER", "FLOAT", "BOOLEAN", "VOID", "SCALAR", "ENUM", "OBJECT"]),
        st.sampled_from(["Report", "Container"]),
        st.booleans(),
    ),
    lambda inner: st.builds(TypeRef, st.just(LIST), st.just(""), st.booleans(), inner),
)


@given(JSON, REFS)
def test_what_passes_once_passes_again_unchanged(value: Any, ref: TypeRef) -> None:
    """Any value on any type is refused by name or becomes one that the type holds, and that stays as it is."""
    with contextlib.suppress(FunctionFailed):
        once = read(value, ref)
        with_optional = replace(ref, optional=True)
        assert read(once, with_optional) == once
