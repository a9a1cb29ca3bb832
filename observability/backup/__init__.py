"""Backups of checkpoints and of the service's data: hourly, verified, kept for a week, restored on request.

repository.py   where backups live: contents by their sha256, one manifest a snapshot
capture.py      reading files that are in use: SQLite by its online backup, others until they hold still
retention.py    which snapshots stay: 24 hourly and 7 daily (pure)
restore.py      putting a snapshot back, with what was there moved aside
schedule.py     the hourly loop and its metrics
"""
