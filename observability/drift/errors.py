"""What can go wrong with the drift job. One line: problem, value, place. What to do.

DriftError          exit status 1
├── RowsUnreadable  the rows of runs cannot be read where they should be    2
└── NoReference     nothing frozen yet to compare with                      2
"""

from __future__ import annotations


class DriftError(Exception):
    """The drift job could not be done."""

    exit_status = 1


class RowsUnreadable(DriftError):
    """Rows cannot be read."""

    exit_status = 2


class NoReference(DriftError):
    """There is no reference."""

    exit_status = 2
