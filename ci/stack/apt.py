"""Debian packages: what is missing, from which suite, and installing it without starting any service.

Only for machines that answer to apt and only as root or with AGENT_LOOP_INSTALL=1; anywhere else the caller prints
what a person should run.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from pathlib import Path

SOURCES = Path("/etc/apt")
POLICY = Path("/usr/sbin/policy-rc.d")


class InstallError(Exception):
    """Packages could not be installed; the message names them and says what to do."""


def may_install() -> bool:
    """Whether this process may change the machine: root, or asked to by AGENT_LOOP_INSTALL=1 (then through sudo)."""
    return os.geteuid() == 0 or os.environ.get("AGENT_LOOP_INSTALL") == "1"


def release() -> tuple[str, str]:
    """Distribution id and codename from os-release, such as ("debian", "bookworm"); empty where unknown."""
    try:
        lines = Path("/etc/os-release").read_text().splitlines()
    except OSError:
        return "", ""
    fields = dict(line.split("=", 1) for line in lines if "=" in line)
    return fields.get("ID", "").strip('"'), fields.get("VERSION_CODENAME", "").strip('"')


def missing(packages: Iterable[str]) -> list[str]:
    """Those of the packages that dpkg does not list as installed."""

    def installed(name: str) -> bool:
        asked = subprocess.run(
            ["dpkg-query", "-W", "-f=${db:Status-Status}", name], capture_output=True, text=True, check=False
        )
        return asked.stdout.strip() == "installed"

    return [name for name in packages if not installed(name)]


def main_source() -> str:
    """The machine's own Debian source as a deb822 paragraph, whichever of the two formats it is written in.

    Raises InstallError when there is none: then nobody knows which mirror this machine may use.
    """
    _, codename = release()
    for path in sorted((SOURCES / "sources.list.d").glob("*.sources")):
        for paragraph in path.read_text().split("\n\n"):
            fields = dict(
                line.split(":", 1) for line in paragraph.splitlines() if ":" in line and not line.startswith("#")
            )
            if codename in fields.get("Suites", "").split():
                kept = ("Types", "URIs", "Components", "Signed-By")
                return "".join(f"{key}:{fields[key]}\n" for key in kept if key in fields)
    listed = SOURCES / "sources.list"
    for line in listed.read_text().splitlines() if listed.is_file() else []:
        words = [w for w in line.split() if not w.startswith("[") and not w.endswith("]")]
        if len(words) >= 4 and words[0] == "deb" and words[2] == codename:
            return f"Types: deb\nURIs: {words[1]}\nComponents: {' '.join(words[3:])}\n"
    raise InstallError(f"no apt source for '{codename}' in {SOURCES}; add one, then run this again")


def add_suite(suite: str, packages: Sequence[str]) -> None:
    """Let apt take `packages`, and nothing else, from another suite of the machine's own mirror.

    The rest of the suite is pinned below the installed release, so no other package moves there.
    """
    source = f"{main_source()}Suites: {suite}\n"
    pins = (
        f"Package: *\nPin: release n={suite}\nPin-Priority: 100\n\n"
        f"Package: {' '.join(packages)}\nPin: release n={suite}\nPin-Priority: 990\n"
    )
    _write(SOURCES / "sources.list.d" / f"agent-loop-{suite}.sources", source)
    _write(SOURCES / "preferences.d" / f"agent-loop-{suite}", pins)


def install(packages: Sequence[str]) -> None:
    """Install packages without recommends and without starting their services. Raises InstallError."""
    apt = [*_sudo(), "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-q"]
    with _no_services():
        for step in (["update"], ["install", "-y", "--no-install-recommends", *packages]):
            done = subprocess.run([*apt, *step], stdin=subprocess.DEVNULL, capture_output=True, text=True)
            if done.returncode != 0:
                tail = "\n".join((done.stdout + done.stderr).splitlines()[-8:])
                raise InstallError(f"'apt-get {' '.join(step)}' ended with {done.returncode}:\n{tail}")


def _sudo() -> list[str]:
    return [] if os.geteuid() == 0 else ["sudo"]


def _write(path: Path, text: str) -> None:
    subprocess.run([*_sudo(), "tee", str(path)], input=text, text=True, stdout=subprocess.DEVNULL, check=True)


@contextmanager
def _no_services() -> Generator[None]:
    """Debian's documented switch: while policy-rc.d exits 101, installing a package starts nothing."""
    if POLICY.exists():
        yield
        return
    _write(POLICY, "#!/bin/sh\nexit 101\n")
    subprocess.run([*_sudo(), "chmod", "0755", str(POLICY)], check=True)
    try:
        yield
    finally:
        subprocess.run([*_sudo(), "rm", "-f", str(POLICY)], check=False)
