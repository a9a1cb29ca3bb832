"""How results are printed."""

import json
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ci.engine.call.print import Handle, as_json, go_float, plain


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (2.0, "2"), (0.5, "0.5"), (0.001, "0.001"), (1e-5, "1e-05"), (1e20, "100000000000000000000"), (1e21, "1e+21"),
        (1.5e300, "1.5e+300"), (-0.25, "-0.25"), (float("inf"), "+Inf"),
    ],
)  # fmt: skip
def test_floats_are_written_as_go_writes_them(value: float, text: str) -> None:
    """Whole numbers have no point; exponents begin where Go's do."""
    assert go_float(value) == text


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_no_digit_of_a_float_is_lost(value: float) -> None:
    """The text reads back as the very same number."""
    assert struct.pack("d", float(go_float(value)) + 0.0) == struct.pack("d", value + 0.0)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists))
def test_json_reads_back(value: object) -> None:
    """`-j` loses nothing, whatever the text holds."""
    assert json.loads(as_json(value)) == value


def test_objects_are_told_apart_by_their_digests() -> None:
    """Equal objects have one handle, others another; `-j` changes nothing about them."""
    one, same, other = Handle.of("File", "a"), Handle.of("File", "a"), Handle.of("File", "b")
    assert one == same != other
    assert plain(one) == as_json(one) == f"{one}\n"
    assert plain([one, other]) == f"- {one}\n- {other}\n"


def test_a_field_of_each_member_is_one_a_line() -> None:
    """The answer's shape is for `-j`; plain text shows the values."""
    assert plain([{"next": {"title": "a"}}, {"next": {"title": "b"}}]) == "a\nb\n"
