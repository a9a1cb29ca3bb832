"""Where this machine gets Debian packages: asked of its own apt, so no archive is named in the repository."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from ci.engine.bases.errors import MissingTool, NoPackageSource

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_FIELDS = "$(REPO_URI)|$(CODENAME)|$(COMPONENT)|$(ORIGIN)"


@dataclass(frozen=True)
class Target:
    """A package index that apt is configured for."""

    uri: str
    codename: str
    component: str
    origin: str
    """`Debian` once `apt-get update` has run; before that apt leaves the placeholder in place."""


def parse(listing: str) -> list[Target]:
    """Read `apt-get indextargets` lines of `_FIELDS`; lines of another shape are left out."""
    rows = (line.split("|") for line in listing.splitlines())
    return [Target(*row) for row in rows if len(row) == 4]


def choose(targets: list[Target], suite: str, machine: str) -> list[str]:
    """The `deb` lines for `suite`: the main archive, and the security archive where the machine uses one.

    `machine` is the machine's own release name; it decides while the lists' origin is not known yet.
    """

    def ours(target: Target) -> bool:
        known = not target.origin.startswith("$(")
        release = target.codename.partition("-")[0]
        return target.component == "main" and (target.origin == "Debian" if known else release == machine)

    debian = [t for t in targets if ours(t)]
    main = [t.uri for t in debian if "-" not in t.codename]
    # The security archive's suite is `<release>-security`; a mirror that serves it in the main archive's tree
    # has the same URI, which is fine too.
    security = [t.uri for t in debian if t.codename.endswith("-security")]
    lines = [_line(main[0], suite)] if main else []
    if main and security:
        lines.append(_line(security[0], f"{suite}-security"))
    return lines


def _line(uri: str, suite: str) -> str:
    return f"deb [signed-by={KEYRING}] {uri} {suite} main"


def machine_release(os_release: Path = Path("/etc/os-release")) -> str:
    """The machine's release name (`bookworm`), or an empty string."""
    lines = os_release.read_text().splitlines() if os_release.exists() else []
    fields = dict(line.split("=", 1) for line in lines if "=" in line)
    return fields.get("VERSION_CODENAME", "").strip('"')


def sources(suite: str) -> list[str]:
    """The `deb` lines to install `suite` from: `AGENT_LOOP_APT_MIRROR` if set, else the machine's own.

    Raises:
        NoPackageSource: no apt here, or it is configured for no Debian archive.
        MissingTool: Debian's signing keys are not installed.
    """
    if not KEYRING.exists():
        raise MissingTool(
            f"Debian's signing keys are not there: {KEYRING}. Run 'apt-get install debian-archive-keyring'."
        )
    if mirror := os.environ.get("AGENT_LOOP_APT_MIRROR"):
        return [_line(mirror, suite)]
    command = ["apt-get", "indextargets", "--format", _FIELDS, "Created-By: Packages"]
    try:
        listing = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        listing = ""
    lines = choose(parse(listing), suite, machine_release())
    if not lines:
        raise NoPackageSource(
            "No Debian archive in this machine's apt sources. Set AGENT_LOOP_APT_MIRROR to one's address."
        )
    return lines
