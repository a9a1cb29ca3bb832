"""A PostgreSQL server of the distribution's package, for one test session: own folder, own port, ended after it.

PostgreSQL refuses to run as root, so there the account `postgres` (of the package) owns the folder and the process.
"""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path


def binaries() -> Path:
    """The folder with `initdb` and `postgres`. Raises RuntimeError where there is none."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    if found:
        return found[-1].parent
    onpath = shutil.which("postgres")
    if onpath is None:
        raise RuntimeError("PostgreSQL is not installed. Install the package 'postgresql' ('agent-loop setup' does).")
    return Path(onpath).parent


@contextmanager
def running(host: str = "127.0.0.1", password: str = "") -> Generator[str]:
    """A server at an address of this machine; yields SQLAlchemy's address of its empty database.

    With a password everybody needs it, from whatever machine; else nobody does, from this one.
    """
    folder = Path(tempfile.mkdtemp(prefix="agent-loop-postgres-"))
    account = pwd.getpwnam("postgres") if os.geteuid() == 0 else None
    who = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []} if account else {}
    if account:
        os.chown(folder, account.pw_uid, account.pw_gid)
    bin_folder, data = binaries(), folder / "data"
    with socket.socket() as probe:
        probe.bind((host, 0))
        port = probe.getsockname()[1]

    def call(*command: str) -> None:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, **who)
        assert done.returncode == 0, done.stdout + done.stderr

    try:
        (folder / "password").write_text(password or "none")
        (folder / "password").chmod(0o444)
        way = ["-A", "scram-sha-256", "--pwfile", str(folder / "password")] if password else ["-A", "trust"]
        call(str(bin_folder / "initdb"), "-D", str(data), "-U", "agent", *way, "-E", "UTF8", "--no-sync")
        if password:
            with (data / "pg_hba.conf").open("a") as rules:
                rules.write("host all all all scram-sha-256\n")
        options = f"-h {host} -p {port} -k {folder} -c fsync=off -c max_connections=60"
        call(
            str(bin_folder / "pg_ctl"),
            "-D",
            str(data),
            "-w",
            "-t",
            "120",
            "-l",
            str(folder / "log"),
            "-o",
            options,
            "start",
        )
        try:
            who_asks = f"agent:{password}" if password else "agent"
            yield f"postgresql+asyncpg://{who_asks}@{host}:{port}/postgres"
        finally:
            call(str(bin_folder / "pg_ctl"), "-D", str(data), "-w", "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
