"""The hourly loop: back up, verify, prune, and say when that last worked."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from datetime import UTC, datetime

from prometheus_client import CollectorRegistry

from observability import names
from observability.backup.errors import BackupError, Damaged
from observability.backup.repository import Repository, Snapshot
from observability.backup.sources import Places, source
from observability.exposition import Series

log = logging.getLogger("backup")

EACH = 3600.0
AGAIN = 300.0
"""Seconds between backups; and until the next trial after one that failed."""

_METRICS = (
    names.BACKUP_LAST_SUCCESS,
    names.BACKUP_FAILURES,
    names.BACKUP_DURATION,
    names.BACKUP_BYTES,
    names.BACKUP_SNAPSHOTS,
)


def make(repository: Repository, what: str, places: Places, now: datetime) -> Snapshot:
    """One backup, verified. Raises BackupError; a snapshot that does not verify is an error too."""
    from_where = source(what, places)
    snapshot = repository.create(what, from_where.roots, extra=from_where.extra, now=now)
    if problems := repository.verify(snapshot):
        raise Damaged(f"{problems[0]} The damaged content was set aside; the next backup writes it again.")
    return snapshot


class Schedule:
    """Backs up each kind every hour. What was there before it started counts: a restart is not a missing backup."""

    def __init__(
        self, repository: Repository, whats: Sequence[str], places: Places, registry: CollectorRegistry
    ) -> None:
        self._repository = repository
        self._whats = tuple(whats)
        self._places = places
        self._series = Series(_METRICS, registry)
        for what in self._whats:
            self._series.inc(names.BACKUP_FAILURES, 0, what=what)
            snapshots = repository.snapshots(what)
            self._series.set(names.BACKUP_SNAPSHOTS, len(snapshots), what=what)
            self._series.set(names.BACKUP_LAST_SUCCESS, snapshots[0].time.timestamp() if snapshots else 0, what=what)

    def turn(self, now: datetime) -> bool:
        """Back up each kind once; failures are logged and counted. Returns whether all worked."""
        worked = [self._one(what, now) for what in self._whats]
        return all(worked)

    def run(self, stop: threading.Event) -> None:
        """Back up now and then every hour until `stop` is set; sooner after a failure."""
        while not stop.is_set():
            worked = self.turn(datetime.now(UTC))
            stop.wait(EACH if worked else AGAIN)

    def _one(self, what: str, now: datetime) -> bool:
        began = time.monotonic()
        try:
            snapshot = make(self._repository, what, self._places, now)
            gone = self._repository.prune(what)
        except BackupError as error:
            self._series.inc(names.BACKUP_FAILURES, what=what)
            log.error("backup of %s failed: %s", what, error)
            return False
        self._series.set(names.BACKUP_LAST_SUCCESS, now.timestamp(), what=what)
        self._series.set(names.BACKUP_DURATION, time.monotonic() - began, what=what)
        self._series.set(names.BACKUP_BYTES, snapshot.size, what=what)
        self._series.set(names.BACKUP_SNAPSHOTS, len(self._repository.snapshots(what)), what=what)
        log.info(
            "backup %s: %d files, %d bytes, %d dropped", snapshot.id, len(snapshot.entries), snapshot.size, len(gone)
        )
        return True
