"""The proxy's certificate and configuration: made once, a person's own taken, what does not fit refused."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from ci.stack import proxy
from ci.stack.errors import StackError
from ci.stack.project import Project


def subject(path: Path) -> str:
    """The certificate's names, as openssl prints them."""
    done = subprocess.run(
        ["openssl", "x509", "-in", str(path), "-noout", "-subject", "-ext", "subjectAltName"],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def test_a_first_certificate_is_made_once(tmp_path: Path) -> None:
    """It names the domains, is said once, and a second start keeps it."""
    settings = {"SERVER_NAME": "agent.example www.agent.example"}
    assert "self-signed" in proxy.ensure(tmp_path, settings, grafana=True)[0]
    made = (tmp_path / "tls" / "cert.pem").read_bytes()
    assert "DNS:agent.example, DNS:www.agent.example" in subject(tmp_path / "tls" / "cert.pem")
    assert proxy.ensure(tmp_path, settings, grafana=True) == []
    assert (tmp_path / "tls" / "cert.pem").read_bytes() == made


def test_it_follows_the_domain(tmp_path: Path) -> None:
    """First tried as localhost, then given its domain: visitors are not shown the old name."""
    proxy.ensure(tmp_path, {}, grafana=True)
    assert "self-signed" in proxy.ensure(tmp_path, {"SERVER_NAME": "agent.example"}, grafana=True)[0]
    assert "DNS:agent.example" in subject(tmp_path / "tls" / "cert.pem")


def test_it_is_made_again_before_it_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Within a month of its end the next start makes another."""
    monkeypatch.setattr(proxy, "DAYS", proxy.RENEWED - 1)
    proxy.ensure(tmp_path, {}, grafana=True)
    monkeypatch.undo()
    assert "self-signed" in proxy.ensure(tmp_path, {}, grafana=True)[0]
    assert proxy.ensure(tmp_path, {}, grafana=True) == []


def signed(folder: Path) -> dict[str, str]:
    """The settings that name a certificate for own.example, signed by an authority of its own."""
    folder.mkdir()
    authority = ["-x509", "-subj", "/CN=An authority", "-keyout", f"{folder}/ca.key", "-out", f"{folder}/ca.pem"]
    own = ["-x509", "-CA", f"{folder}/ca.pem", "-CAkey", f"{folder}/ca.key", "-subj", "/CN=own.example"]
    own += ["-addext", "subjectAltName=DNS:own.example", "-keyout", f"{folder}/key.pem", "-out", f"{folder}/cert.pem"]
    for words in (authority, own):
        subprocess.run(["openssl", "req", "-newkey", "rsa:2048", "-nodes", *words], check=True, capture_output=True)
    return {"AGENT_LOOP_TLS_CERT": f"{folder}/cert.pem", "AGENT_LOOP_TLS_KEY": f"{folder}/key.pem"}


def test_ones_own_certificate_is_served(tmp_path: Path) -> None:
    """The files that two settings name are what the proxy gets, and browsers are told to come by HTTPS alone."""
    settings = signed(tmp_path / "own")
    assert proxy.ensure(tmp_path / "stack", {}, grafana=False)
    assert "Strict-Transport-Security" not in (tmp_path / "stack" / "nginx" / "nginx.conf").read_text()
    assert proxy.ensure(tmp_path / "stack", settings, grafana=False) == []
    assert (tmp_path / "stack" / "tls" / "cert.pem").read_bytes() == (tmp_path / "own" / "cert.pem").read_bytes()
    assert "Strict-Transport-Security" in (tmp_path / "stack" / "nginx" / "nginx.conf").read_text()


def test_a_start_without_its_settings_keeps_ones_own_certificate(tmp_path: Path) -> None:
    """From another shell, under another name: it is served until another of one's own takes its place."""
    proxy.ensure(tmp_path / "stack", {}, grafana=False)
    proxy.ensure(tmp_path / "stack", signed(tmp_path / "own"), grafana=False)
    before = (tmp_path / "stack" / "nginx" / "nginx.conf").read_text()
    assert proxy.ensure(tmp_path / "stack", {}, grafana=False) == []
    assert (tmp_path / "stack" / "tls" / "cert.pem").read_bytes() == (tmp_path / "own" / "cert.pem").read_bytes()
    assert (tmp_path / "stack" / "nginx" / "nginx.conf").read_text() == before


def pair(folder: Path) -> tuple[Path, Path]:
    """A certificate and its key."""
    folder.mkdir()
    proxy.ensure(folder, {}, grafana=False)
    return folder / "tls" / "cert.pem", folder / "tls" / "key.pem"


def locked(key: Path, target: Path) -> Path:
    """The same key behind a passphrase."""
    command = ["openssl", "pkey", "-in", str(key), "-aes256", "-passout", "pass:secret", "-out", str(target)]
    subprocess.run(command, check=True)
    return target


BROKEN = {
    "one variable": "Set both",
    "no file": "none.pem: No such file or directory, in AGENT_LOOP_TLS_CERT",
    "a folder": "Is a directory, in AGENT_LOOP_TLS_KEY",
    "binary": "not text, in AGENT_LOOP_TLS_CERT",
    "swapped": "No certificate in .*key.pem",
    "no key in it": "No private key in .*cert.pem",
    "passphrase": "openssl pkey",
    "wrong key": "matching PEM pair",
}


@pytest.mark.parametrize("broken", BROKEN)
def test_what_does_not_fit_is_one_clear_line(broken: str, tmp_path: Path) -> None:
    """Half a pair, an unreadable file, another certificate's key: each is named with the fix, nothing is replaced."""
    certificate, key = pair(tmp_path / "a")
    _, other = pair(tmp_path / "b")
    served, _ = pair(tmp_path / "stack")
    before = served.read_bytes()
    (tmp_path / "der").write_bytes(b"\x30\x82\xff\xfe")
    wanted = {
        "one variable": (certificate, ""),
        "no file": (tmp_path / "none.pem", key),
        "a folder": (certificate, tmp_path),
        "binary": (tmp_path / "der", key),
        "swapped": (key, certificate),
        "no key in it": (certificate, certificate),
        "passphrase": (certificate, locked(key, tmp_path / "locked")),
        "wrong key": (certificate, other),
    }
    certificate, key = wanted[broken]
    settings = {"AGENT_LOOP_TLS_CERT": str(certificate), "AGENT_LOOP_TLS_KEY": str(key)}
    with pytest.raises(StackError, match=BROKEN[broken]) as caught:
        proxy.ensure(tmp_path / "stack", settings, grafana=False)
    assert "\n" not in str(caught.value)
    assert served.read_bytes() == before


def test_a_pair_that_broke_is_made_again(tmp_path: Path) -> None:
    """Killed between key and certificate, or a file cut short: the next start makes a self-signed pair that works."""
    certificate, key = pair(tmp_path / "stack")
    key.unlink()
    key.write_text("-----BEGIN PRIVATE KEY-----")
    assert "self-signed" in proxy.ensure(tmp_path / "stack", {}, grafana=False)[0]
    assert proxy.ensure(tmp_path / "stack", {}, grafana=False) == []
    assert "DNS:localhost" in subject(certificate)


def test_a_start_keeps_the_split_of_a_release(tmp_path: Path) -> None:
    """`up prod` in the middle of a canary does not send its sessions elsewhere."""
    proxy.ensure(tmp_path, {}, grafana=True)
    proxy.split(tmp_path, 25, "v2", deployed=True)
    before = (tmp_path / "nginx" / "split.conf").read_text()
    assert "25%" in before
    proxy.ensure(tmp_path, {}, grafana=True)
    assert (tmp_path / "nginx" / "split.conf").read_text() == before


@dataclass(frozen=True)
class Told(Project):
    """A stack whose proxy writes down what it is told, and refuses its files while `refuses` holds a word."""

    told: list[str] = field(default_factory=list)
    refuses: list[str] = field(default_factory=list)

    def compose(self, *words: str, **rest: Any) -> subprocess.CompletedProcess[str]:
        """Nothing runs."""
        self.told.append("reload" if "reload" in words else "test")
        return subprocess.CompletedProcess(words, len(self.refuses), "", "".join(self.refuses))


def test_a_running_proxy_reads_what_changed(tmp_path: Path) -> None:
    """A renewed certificate or another domain is taken up by the next start; with nothing changed nothing is told."""
    stack = Told("prod", state=tmp_path)
    proxy.ensure(tmp_path, {}, grafana=True)
    assert not proxy.load(stack), "the first start has nothing to say"
    assert not proxy.load(stack)
    for settings in ({"SERVER_NAME": "agent.example"}, {"HTTPS_PORT": "8443"}, signed(tmp_path / "own")):
        proxy.ensure(tmp_path, settings, grafana=True)
        assert proxy.load(stack)
        assert not proxy.load(stack)
    assert stack.told == ["test", "reload"] * 4


def test_what_it_refuses_is_tried_again(tmp_path: Path) -> None:
    """The old files stay in force, the reason is said, and the next start tries once more."""
    stack = Told("prod", state=tmp_path, refuses=["no such directive"])
    proxy.ensure(tmp_path, {}, grafana=True)
    with pytest.raises(StackError, match="no such directive"):
        proxy.load(stack)
    assert stack.told == ["test"]
    stack.refuses.clear()
    proxy.load(stack)
    assert stack.told == ["test", "test", "reload"]
