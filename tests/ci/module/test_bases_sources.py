"""Where base images get their packages: asked of the machine's own apt, never written down."""

from __future__ import annotations

import pytest

from ci.engine.bases import apt
from ci.engine.bases.errors import NoPackageSource

MAIN = "http://mirror.example/debian/"
SECURITY = "http://mirror.example/debian-security/"


def listing(*rows: tuple[str, str, str, str]) -> str:
    return "\n".join("|".join(row) for row in rows) + "\n"


BOOKWORM = listing(
    (MAIN, "bookworm", "main", "Debian"),
    (MAIN, "bookworm-updates", "main", "Debian"),
    (SECURITY, "bookworm-security", "main", "Debian"),
    ("https://other.example/apt/", "nodistro", "main", "nodistro"),
)


def test_a_debian_machine_gives_its_mirror_with_the_suite_changed() -> None:
    """The main and the security archive are the machine's own, and both are checked with Debian's keys."""
    lines = apt.choose(apt.parse(BOOKWORM), "trixie", "bookworm")
    assert lines == [
        f"deb [signed-by={apt.KEYRING}] {MAIN} trixie main",
        f"deb [signed-by={apt.KEYRING}] {SECURITY} trixie-security main",
    ]


def test_a_machine_without_security_archive_gives_only_the_main_one() -> None:
    """No archive is invented."""
    lines = apt.choose(apt.parse(listing((MAIN, "bookworm", "main", "Debian"))), "trixie", "bookworm")
    assert [line.split()[-2] for line in lines] == ["trixie"]


def test_before_the_first_update_the_release_name_tells_debian_s_archive() -> None:
    """apt does not know an origin before `apt-get update`; third parties are still left out."""
    rows = listing(
        ("https://other.example/apt/", "nodistro", "main", "$(ORIGIN)"),
        (MAIN, "bookworm", "main", "$(ORIGIN)"),
    )
    assert [line.split()[2] for line in apt.choose(apt.parse(rows), "trixie", "bookworm")] == [MAIN]


def test_another_distribution_has_no_debian_archive() -> None:
    """Ubuntu's archive is not taken for Debian's."""
    rows = listing(("http://mirror.example/ubuntu/", "noble", "main", "Ubuntu"))
    assert apt.choose(apt.parse(rows), "trixie", "noble") == []


def test_lines_of_another_shape_are_left_out() -> None:
    """A warning among the lines does not become a source."""
    assert apt.parse("W: something\n\n" + BOOKWORM) == apt.parse(BOOKWORM)


def test_a_mirror_from_the_environment_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    """AGENT_LOOP_APT_MIRROR is the way out where apt knows no Debian archive."""
    monkeypatch.setattr(apt, "KEYRING", apt.Path(__file__))
    monkeypatch.setenv("AGENT_LOOP_APT_MIRROR", MAIN)
    assert apt.sources("trixie") == [f"deb [signed-by={__file__}] {MAIN} trixie main"]


def test_without_any_archive_the_error_says_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without apt there is one line with the way out."""
    monkeypatch.setattr(apt, "KEYRING", apt.Path(__file__))
    monkeypatch.delenv("AGENT_LOOP_APT_MIRROR", raising=False)
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(NoPackageSource, match="Set AGENT_LOOP_APT_MIRROR"):
        apt.sources("trixie")
