"""What can go wrong with a backup. The message is one line: problem, value, place. What to do.

BackupError             exit status 1
├── SourceMissing       nothing to back up at the given place                      2
├── NoSuchSnapshot      no snapshot of that name                                   2
├── SourceBusy          a file kept changing while it was read                     1
├── DatabaseUnusable    PostgreSQL, or one of its programs, refused                1
├── Damaged             a snapshot's contents are not what its manifest says       3
└── RepositoryBusy      another backup works there now                             4
"""

from __future__ import annotations


class BackupError(Exception):
    """A backup could not be made, checked or restored."""

    exit_status = 1


class SourceMissing(BackupError):
    """There is nothing to back up."""

    exit_status = 2


class NoSuchSnapshot(BackupError):
    """No snapshot has that name."""

    exit_status = 2


class SourceBusy(BackupError):
    """A file changed each time it was read."""


class DatabaseUnusable(BackupError):
    """The run store's database cannot be dumped or restored."""


class Damaged(BackupError):
    """Contents differ from their checksum."""

    exit_status = 3


class RepositoryBusy(BackupError):
    """Somebody else holds the repository."""

    exit_status = 4
