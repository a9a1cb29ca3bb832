"""Small pieces of Dockerfile text that several instructions share."""

from __future__ import annotations

import hashlib

from .dockerfile import words

TOOLS = "--mount=type=bind,source=tools,target=/.al/bin"


def short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def folder(path: str) -> str:
    return f"/{path.strip('/')}/" if path.strip("/") else "/"


def flags(owner: str, mode: int | None = None) -> str:
    chown = f"--chown={owner} " if owner else ""
    chmod = f"--chmod={mode & 0o7777:04o} " if mode is not None else ""
    return chown + chmod


def edit(*arguments: str) -> str:
    return words(["/.al/bin/busybox", "sh", "/.al/bin/edit.sh", *arguments])
