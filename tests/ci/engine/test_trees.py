"""File trees and the operations on them, without any build."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ci.engine.errors import FieldError
from ci.engine.files.changes import Copy, Diff, Link, Make, Remove, Rewrite
from ci.engine.files.digests import tree_digest
from ci.engine.files.export import write_file, write_tree
from ci.engine.files.fs import SCRATCH, Held, plain
from ci.engine.files.owners import names_to_ids
from ci.engine.files.tree import Blob, Entry, Tree, TreeError, clean

PASSWD = "root:x:0:0::/root:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n"


def files(**contents: str) -> Tree:
    made = Held(Tree())
    fs = made
    for path, text in contents.items():
        fs = Make(fs, path.replace("__", "/"), text.encode(), 0o644)  # type: ignore[assignment]
    return plain(fs, {})


@given(st.text("ab./", max_size=12))
def test_a_path_never_leaves_its_tree(path: str) -> None:
    """However many dots a path has, cleaned it names something below the root."""
    cleaned = clean(path)
    assert not cleaned.startswith("/")
    assert not {"", ".", ".."} & set(cleaned.split("/")) or cleaned == ""


def test_links_resolve_inside_the_tree() -> None:
    """An absolute link starts at the tree's root, and a loop is a missing path, not a hang."""
    tree = Tree(
        {
            "etc": Entry("dir"),
            "etc/f": Entry("file", blob=Blob.of(b"x")),
            "ln": Entry("link", target="/etc"),
            "a": Entry("link", target="b"),
            "b": Entry("link", target="a"),
        }
    )
    assert tree.real("ln/f") == "etc/f"
    with pytest.raises(TreeError):
        tree.real("a")


def test_operations_leave_their_input_alone() -> None:
    """A tree is a value: making, removing and merging give others."""
    tree = files(a="1", sub__b="2")
    before = tree.key
    Remove(Held(tree), ("sub",)).apply(tree)
    Make(Held(tree), "c", b"3", 0o644).apply(tree)
    assert tree.key == before


def test_diff_is_what_the_other_side_has() -> None:
    """Changed and new files come, with their folders; removed ones do not."""
    old, new = files(a="1", gone="x"), files(a="2", sub__n="n")
    assert sorted(p for p, _ in Diff(Held(old), Held(new)).apply(old, new).walk()) == ["a", "sub", "sub/n"]


def test_copied_parents_are_roots_even_with_an_owner() -> None:
    """Folders made on the way belong to root; what is copied to the owner."""
    copied = Copy(SCRATCH, Held(files(f="x")), "", "deep/er", owner="1000:1001", within="container")
    tree = plain(copied, {})
    owners = {p: (e.uid, e.gid) for p, e in tree.walk()}
    assert owners == {"deep": (0, 0), "deep/er": (1000, 1001), "deep/er/f": (1000, 1001)}


def test_removing_takes_patterns_of_names_only() -> None:
    """Two stars are no more than one when files are removed, and a missing path is no error."""
    tree = files(**{"b.txt": "", "sub__c.txt": "", "sub__deep__d.txt": ""})
    left = Remove(Held(tree), ("**/*.txt", "none")).apply(tree)
    assert "b.txt" in left.entries
    assert "sub/c.txt" not in left.entries
    assert "sub/deep/d.txt" in left.entries


def test_a_link_does_not_replace_a_file() -> None:
    """Making a link where a file lies is refused."""
    tree = files(f="x")
    with pytest.raises(FieldError, match="file exists"):
        Link(Held(tree), "g", "f").apply(tree)


def test_a_string_found_twice_is_not_replaced_silently() -> None:
    """Without `all` a search string must be there exactly once; the places are told."""
    tree = files(n="one two one")
    with pytest.raises(FieldError, match=r"line 1 \(0-3\), line 1 \(8-11\)"):
        Rewrite(Held(tree), "n", "one", "1", False, None).apply(tree)
    done = Rewrite(Held(tree), "n", "one", "1", True, None).apply(tree)
    assert done.text("n") == "1 two 1"


def test_owner_names_need_an_entry() -> None:
    """A user's name gives its own group; an unknown one is named in the error."""
    assert names_to_ids("nobody", PASSWD, "") == (65534, 65534)
    with pytest.raises(FieldError, match="no such user: ghost"):
        names_to_ids("ghost", PASSWD, "")


def test_digests_see_modes_and_not_times() -> None:
    """The digest is a real engine's, to the last digit, and a time alone changes nothing."""
    one = Entry("file", 0o644, blob=Blob.of(b"1"))
    digest = tree_digest(Tree({"x": one}))
    assert digest == "sha256:b8fe6cce86e8094961cc6acd8d5e5c465a00d5c222689ecec13390c336f6e951"
    assert tree_digest(Tree({"x": one}).changed(mtime=5.0)) == digest
    assert tree_digest(Tree({"x": one}).changed(mode=0o600)) != digest


def test_exported_folders_merge_and_replace_the_other_kind(tmp_path: Path) -> None:
    """A folder in the way of a file goes, what is not in the tree stays, and with wipe it does not."""
    (tmp_path / "out" / "c").mkdir(parents=True)
    (tmp_path / "out" / "c" / "d").write_text("old")
    (tmp_path / "out" / "keep").write_text("k")
    write_tree(files(c="new"), tmp_path / "out")
    assert (tmp_path / "out" / "c").read_text() == "new"
    assert (tmp_path / "out" / "keep").exists()
    write_tree(files(c="new"), tmp_path / "out", wipe=True)
    assert not (tmp_path / "out" / "keep").exists()


def test_an_exported_file_makes_private_parents_and_keeps_an_old_mode(tmp_path: Path) -> None:
    """New parents are 0700; a file that was there keeps its mode; a folder is refused unless asked for."""
    entry = Entry("file", 0o644, blob=Blob.of(b"x"))
    write_file(entry, "n", tmp_path / "a" / "b" / "n")
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o700
    old = tmp_path / "old"
    old.write_text("longer than that")
    old.chmod(0o600)
    write_file(entry, "n", old)
    assert (old.read_text(), old.stat().st_mode & 0o777) == ("x", 0o600)
    with pytest.raises(FieldError, match="is a directory"):
        write_file(entry, "n", tmp_path / "a")
