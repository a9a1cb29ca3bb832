"""What a failed build means for a pipeline, from what BuildKit says of it."""

from __future__ import annotations

import re

from ci.engine.errors import BuildFailed, EngineError, ExecError, FieldError
from ci.engine.values import Step

MISSING = re.compile(r'"(/[^"]*)": not found')
IN_THE_WAY = re.compile(
    r"(?:mkdir|lstat|cannot copy to non-directory:|cannot replace to directory) "
    r"/\S*?/buildkit(?:-mount)?\d+(/.*?)(?:: not a directory| with file|\s*$)"
)
"""What COPY says where there is a file in the place of a folder, or the other way round."""
REFUSED = re.compile(r"al-refused: (.*)")
NO_USER = re.compile(r"unable to find (?:user|group) [^:]*: no matching entries in (?:passwd|group) file")
NO_OWNER = re.compile(
    r"(?:unable to find user|invalid user index|can't find uid for user|no such user)[: ]+\"?([\w.-]+)"
)


def meaning(failed: BuildFailed, step: Step | None) -> EngineError | None:
    """The error of a build; None where it is that `step`, which it names, ended with an exit code."""
    if step is not None:
        no_user = NO_USER.search(failed.reason)
        if no_user:
            return ExecError(step.args, -1, "", "", f"get user: {no_user[0]}")
        if failed.exit_code is not None:
            return None
    refused = REFUSED.search(failed.log)
    if refused:
        return FieldError(refused[1], lazy=True)
    path = in_the_way(failed)
    if path is not None:
        return FieldError(f'cannot copy directory to non-directory "{path}"', lazy=True)
    missing = MISSING.search(failed.reason)
    if missing:
        return FieldError(f"stat {missing[1].rstrip('/') or '/'}: no such file or directory", lazy=True)
    owner = NO_OWNER.search(failed.reason)
    if owner:
        return FieldError(f"failed to resolve ownership for {owner[1]}: find uid: no such user: {owner[1]}", lazy=True)
    return FieldError(failed.reason, lazy=True)


def in_the_way(failed: BuildFailed) -> str | None:
    """The path of what was in the way of a COPY, if that is why it failed."""
    found = IN_THE_WAY.search(failed.reason)
    return found[1] if found else None
