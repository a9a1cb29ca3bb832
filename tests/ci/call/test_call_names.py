"""Names on the command line."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ci.engine.module.names import camel, kebab, pascal, prefixed


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("off_by_default", "off-by-default"),
        ("withExec", "with-exec"),
        ("asTarball", "as-tarball"),
        ("experimentalWithAllGPUs", "experimental-with-all-gp-us"),
        ("build_h100", "build-h-100"),
        ("o1", "o-1"),
        ("JSONValue", "json-value"),
        ("x86_64", "x-8664"),
        ("with_", "with"),
        ("a_b_c", "a-bc"),
    ],
)
def test_words_split_where_dagger_splits_them(name: str, word: str) -> None:
    """Case changes, digits and underscores each start a new word."""
    assert kebab(name) == word


@given(st.from_regex(r"[a-z]{1,6}(_[a-z]{2,6}){0,3}", fullmatch=True))
def test_snake_and_camel_case_give_the_same_word(name: str) -> None:
    """A function is called by one word whether Python or GraphQL spells its name."""
    assert kebab(name) == kebab(camel(name)) == name.replace("_", "-")


@given(st.from_regex(r"[a-z][a-zA-Z0-9_]{0,20}", fullmatch=True))
def test_a_word_stays_itself(name: str) -> None:
    """Turning a word into a word changes nothing, so no two spellings of it exist."""
    assert kebab(kebab(name)) == kebab(name)
    assert not re.search(r"[A-Z_]", kebab(name))


def test_types_of_a_module_carry_its_name_once() -> None:
    """`Report` of module `my-probe` is `MyProbeReport`; a name that has the prefix keeps it."""
    assert pascal("my-probe") == "MyProbe"
    assert prefixed("my-probe", "Report") == "MyProbeReport"
    assert prefixed("my-probe", "MyProbeReport") == "MyProbeReport"
