"""Path patterns: what they match, and what a list of them leaves of a tree."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ci.engine.files import patterns

PATHS = {"a.txt": False, ".hid": False, "sub": True, "sub/c.txt": False, "sub/deep": True, "sub/deep/d.log": False}
NAMES = st.text("ab.*?[]!-^\\/", max_size=8)


@pytest.mark.parametrize(
    ("pattern", "path", "matches"),
    [
        ("*", ".hid", True),
        ("*", "sub/c.txt", False),
        ("**", "sub/deep/d.log", True),
        ("**/*.txt", "a.txt", True),
        ("**/*.txt", "sub/c.txt", True),
        ("s?b", "sub", True),
        ("[!.]*", ".hid", True),
        ("{a,b}", "a", False),
        ("sub/**", "sub", False),
    ],
)
def test_one_pattern(pattern: str, path: str, matches: bool) -> None:
    """A star matches a leading dot and no slash; classes know no negation by `!`; there are no braces."""
    assert (patterns.expression(pattern).match(path) is not None) is matches


@pytest.mark.parametrize(
    ("include", "exclude", "left"),
    [
        ([], ["**", "!sub/**"], {"sub", "sub/c.txt", "sub/deep", "sub/deep/d.log"}),
        ([], ["sub", "!sub/c.txt"], {"a.txt", ".hid", "sub", "sub/c.txt"}),
        ([], ["!sub/c.txt", "sub"], {"a.txt", ".hid"}),
        (["**/*.txt"], [], {"a.txt", "sub", "sub/c.txt"}),
        (["sub"], ["**/d.log"], {"sub", "sub/c.txt", "sub/deep"}),
        (["none/**"], [], set()),
        (["sub/deep"], ["**/*"], set()),
    ],
)
def test_a_list_keeps_the_last_word_and_the_way_to_it(include: list[str], exclude: list[str], left: set[str]) -> None:
    """The last matching pattern decides; folders stay on the way to what stays."""
    assert patterns.keep(PATHS, include, exclude) == left


@pytest.mark.parametrize("pattern", ["[a", "a\\"])
def test_a_pattern_that_cannot_be_read_says_so(pattern: str) -> None:
    """An unfinished class or escape is an error, not a pattern that matches nothing."""
    with pytest.raises(patterns.BadPattern, match="syntax error in pattern"):
        patterns.expression(pattern)


@given(st.lists(NAMES, max_size=3), st.lists(NAMES, max_size=3))
def test_what_is_kept_is_a_tree(include: list[str], exclude: list[str]) -> None:
    """Whatever the patterns, the parent of everything kept is kept too, and nothing new appears."""
    try:
        kept = patterns.keep(PATHS, include, exclude)
    except patterns.BadPattern:
        return
    assert kept <= set(PATHS)
    assert all(p.rpartition("/")[0] in kept for p in kept if "/" in p)


def test_ignore_files_of_folders_add_to_those_above() -> None:
    """A folder's .gitignore has the last word below it; what lies in an ignored folder cannot come back."""
    files = {".gitignore": "*.log\nout/\n", "sub/.gitignore": "!keep.log\n", "out/.gitignore": "!x\n"}
    paths = {"a.log": False, "out": True, "out/x": False, "sub": True, "sub/keep.log": False, "sub/b.log": False}
    assert patterns.ignored(paths, files.get) == {"a.log", "out", "out/x", "sub/b.log"}


@given(st.lists(st.sampled_from(["**", "*", "sub", "sub/deep", "**/*.log", "s?b", "sub/*", "other"]).flatmap(
    lambda p: st.sampled_from([p, f"!{p}"])), max_size=5))  # fmt: skip
def test_a_folder_that_is_closed_holds_nothing_that_stays(exclude: list[str]) -> None:
    """What is not even read of the host is what the patterns would take away."""
    matcher = patterns.Matcher(exclude)
    kept = patterns.keep(PATHS, [], exclude)
    for folder in (path for path, is_folder in PATHS.items() if is_folder and matcher.closes(path)):
        assert not [path for path in kept if path == folder or path.startswith(f"{folder}/")]


def test_an_allow_list_closes_what_it_does_not_name() -> None:
    """Folders beside what is named are not read; those on the way are."""
    matcher = patterns.Matcher(["**", "!service/**", "!requirements/service.txt", "**/__pycache__"])
    assert matcher.closes(".venv")
    assert matcher.closes("service/__pycache__") is False  # `!service/**` may lead there
    assert not matcher.closes("service")
    assert not matcher.closes("requirements")
    assert patterns.Matcher(["**", "!**/*.py"]).closes(".venv") is False
