"""What can go wrong on the way to a running stack, each with its exit status.

StackError (1)
├── UsageError (2)          words that make no sense together
├── EngineMissing (3)       no container engine, buildx or compose
├── BuildFailed (4)         an image of ours could not be built
├── StartFailed (5)         a container did not become healthy
├── NotReady (6)            something on this machine is in the way; doctor says more
└── Interrupted (130)       Ctrl-C; `up` again goes on from there
"""

from __future__ import annotations


class StackError(Exception):
    """A problem a person can mend; the message is one line: problem, value, place, what to do."""

    exit_status = 1


class UsageError(StackError):
    """The command line asks for something that does not exist or does not go together."""

    exit_status = 2


class EngineMissing(StackError):
    """No container engine answers, or it lacks buildx or compose."""

    exit_status = 3


class BuildFailed(StackError):
    """An image of ours could not be built."""

    exit_status = 4


class StartFailed(StackError):
    """A container ended or did not become healthy in time."""

    exit_status = 5


class NotReady(StackError):
    """A port is taken, a disk is full, a subnet is in use: what `doctor` calls a failure."""

    exit_status = 6


class Interrupted(StackError):
    """The person pressed Ctrl-C."""

    exit_status = 130
