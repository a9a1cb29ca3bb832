"""ripgrep's regular expressions in Python's words."""

from __future__ import annotations

import re
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ci.engine.files.expressions import BadExpression, python


def found(pattern: str, text: str) -> list[str]:
    """What an expression finds in a text."""
    return [m.group() for m in re.finditer(python(pattern), text)]


@pytest.mark.parametrize(
    ("pattern", "text", "matches"),
    [
        (r"\p{L}+", "naïve 42 день", ["naïve", "день"]),
        (r"\pL+", "ab1", ["ab"]),
        (r"\p{Lu}", "aBÉ", ["B", "É"]),
        (r"\p{Uppercase_Letter}", "aBÉ", ["B", "É"]),
        (r"\p{gc=Nd}+", "x12٣", ["12٣"]),
        (r"\P{L}+", "ab12", ["12"]),
        (r"\p{^L}+", "ab12", ["12"]),
        (r"[\p{L}\d_]+", "é1_-", ["é1_"]),
        (r"[^\p{L}]+", "é1-", ["1-"]),
        (r"[\P{L}]+", "é1-", ["1-"]),
        (r"\p{LC}", "aʰ", ["a"]),
        (r"[[:alpha:]]+[[:^space:]]", "ab1 ", ["ab1"]),
        (r"[a[bc]]+", "abcd", ["abc"]),
        (r"[]a]+", "a]b", ["a]"]),
        (r"\x{e9}\u{62}", "éb", ["éb"]),
        (r"(?<word>\w+)\z", "a bc", ["bc"]),
        (r"\<b", "ab b", ["b"]),
        (r"(?i)ab|(?-i:C)", "AB c C", ["AB", "C"]),
        (r"\\p{2}", "\\pp", ["\\pp"]),
    ],
)
def test_what_is_spelled_otherwise_means_the_same(pattern: str, text: str, matches: list[str]) -> None:
    """Classes of Unicode, sets of classes, code points, names of groups and bounds of words."""
    assert found(pattern, text) == matches


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        (r"(a)\1", "backreferences are not supported"),
        (r"a(?=b)", "look-around"),
        (r"(?<!a)b", "look-around"),
        (r"a\Z", "unrecognized escape"),
        (r"[a&&b]", "&& in a class is not known"),
        (r"a(?i)b", r"write \(\?i:\.\.\.\)"),
        (r"\p{Greek}", r"\\p\{Greek\} is not known to this engine.*general categories"),
        (r"\p{sc=Grek}", "ranges, or search on a Dagger engine"),
        ("[ab", "unclosed"),
        ("a\\", "incomplete escape"),
    ],
)
def test_what_ripgrep_or_this_engine_has_not_is_refused(pattern: str, reason: str) -> None:
    """By its name, and with what to write instead where a Dagger engine would take it."""
    with pytest.raises(BadExpression, match=reason):
        python(pattern)


@settings(deadline=None)  # the first of each category reads all characters
@given(st.characters(), st.sampled_from(["L", "Lu", "Nd", "P", "Sm", "Zs", "Cc", "Cn"]))
def test_a_category_is_what_unicode_says(char: str, category: str) -> None:
    """And its negation is all the rest."""
    belongs = unicodedata.category(char).startswith(category)
    assert bool(re.match(python(rf"\p{{{category}}}"), char)) is belongs
    assert bool(re.match(python(rf"[\P{{{category}}}]"), char)) is not belongs


@given(st.text())
def test_an_escaped_text_is_found_as_it_is(text: str) -> None:
    """Nothing in what is escaped has a meaning."""
    assert re.fullmatch(python(re.escape(text)), text)
