"""Bringing files and folders to the host."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

from ci.engine.errors import FieldError

from .tree import Entry, Tree, write_entry

CLOSED = "unexpected closing recv msg: rpc error: code = Unknown desc = "


def write_file(entry: Entry, name: str, target: Path, *, into: bool = False) -> Path:
    """Write a file, or into a folder with `into`; the path that `export` answers. Raises FieldError.

    New parents are 0700; an existing file keeps its mode, a link is written through.
    """
    answer = target
    if target.is_dir():
        if not into:
            raise FieldError(
                f'{CLOSED}destination "{target}" is a directory; must be a file path unless allowParentDirPath is set',
                lazy=True,
            )
        target = target / name
    try:
        _parents(target.parent)
        existing = target.exists()
        write_entry(target, entry, keep_mode=existing)
    except NotADirectoryError:
        raise FieldError(
            f"{CLOSED}failed to stat synctarget dest {target}: stat {target}: not a directory", lazy=True
        ) from None
    except OSError as error:
        raise FieldError(_failed(target, error), lazy=True) from None
    return answer


def write_tree(tree: Tree, target: Path, *, wipe: bool = False) -> None:
    """Merge a tree into a folder, which is made if need be; with `wipe` nothing else stays. Raises FieldError."""
    if target.exists() and not target.is_dir():
        raise FieldError(
            f"rpc error: code = Unknown desc = failed to create synctarget dest dir {target}: mkdir {target}: "
            "not a directory",
            lazy=True,
        )
    try:
        _parents(target.parent)
        target.mkdir(exist_ok=True)
        if wipe:
            for old in list(target.iterdir()):
                if old.is_dir() and not old.is_symlink():
                    shutil.rmtree(old)
                else:
                    old.unlink()
        tree.write(target, link=False)
    except OSError as error:
        raise FieldError(_failed(target, error), lazy=True) from None


def _parents(folder: Path) -> None:
    missing: list[Path] = []
    while not folder.exists():
        missing.append(folder)
        folder = folder.parent
    if not folder.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, "not a directory", str(folder))
    for each in reversed(missing):
        each.mkdir(mode=0o700)


def _failed(target: Path, error: OSError) -> str:
    if error.errno == errno.ENOSPC:
        return f"No space left on the disk of {target}. Free some and run again."
    return f"Cannot write {target}: {(error.strerror or str(error)).lower()}. Choose another place."
