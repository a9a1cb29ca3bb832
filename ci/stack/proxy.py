"""The proxy's files in the state folder: certificate and configuration.

Both lie in folders that the container's user may read (0755); the state folder around them is 0700, so nobody else on
the host can. A self-signed certificate is made at the first start; a person's own replaces it by path.
"""

from __future__ import annotations

import hashlib
import shutil
import ssl
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from ci.stack.errors import StackError
from ci.stack.project import Project, server_names
from observability.nginx.render import Proxy, ProxyError, Split, write, write_split

DAYS = 825
"""Longest life that browsers take for a certificate of a private authority."""
RENEWED = 30
"""Days before its end that a self-signed certificate is made again."""
CONF = "/etc/agent-loop/nginx.conf"


def ensure(state: Path, settings: Mapping[str, str], *, grafana: bool) -> list[str]:
    """Write certificate and configuration where they are missing or changed; return lines that say what was made.

    `AGENT_LOOP_TLS_CERT` and `AGENT_LOOP_TLS_KEY` name a person's own certificate, `SERVER_NAME` the domain. Raises
    StackError for a certificate that cannot be read or does not fit its key.
    """
    tls = _readable(state / "tls")
    said = _certificate(tls, settings)
    folder = _readable(state / "nginx")
    proxy = Proxy(
        server_name=settings.get("SERVER_NAME") or "_",
        grafana="grafana:3000" if grafana else "",
        hsts=not _signed_by_itself(tls / "cert.pem"),
        public_https_port=int(settings.get("HTTPS_PORT") or "443"),
    )
    try:
        write(proxy, folder)
    except ProxyError as error:
        raise StackError(str(error)) from error
    return said


def split(state: Path, percent: int, variant: str, deployed: bool) -> None:
    """Write how new sessions are divided; the proxy sees it after a reload."""
    write_split(Split(percent=percent, deployed=deployed, variant=variant), _readable(state / "nginx"))


def load(stack: Project) -> bool:
    """Let the running proxy read certificate and configuration where they are not what it read last.

    Returns whether they are others than at an earlier start. Raises StackError when it refuses them.
    """
    files = [stack.state / "nginx" / "nginx.conf", stack.state / "tls" / "cert.pem", stack.state / "tls" / "key.pem"]
    there = hashlib.sha256(b"".join(hashlib.sha256(path.read_bytes()).digest() for path in files)).hexdigest()
    record = stack.state / "nginx.loaded"
    before = record.read_text() if record.is_file() else ""
    if before == there:
        return False
    reload(stack)
    record.write_text(there)
    return bool(before)


def reload(stack: Project) -> None:
    """Let the running proxy read its files again. Raises StackError when it refuses them."""
    tested = stack.compose("exec", "--no-TTY", "nginx", "nginx", "-t", "-q", "-c", CONF, capture=True)
    if tested.returncode != 0:
        raise StackError(f"nginx refuses its new files: {tested.stderr.strip()}. The old ones stay in force.")
    stack.compose("exec", "--no-TTY", "nginx", "nginx", "-s", "reload", "-c", CONF, capture=True)
    time.sleep(0.2)  # the workers with the new files have started before anybody counts sessions


def _readable(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o755)
    return folder


def _certificate(folder: Path, settings: Mapping[str, str]) -> list[str]:
    own = settings.get("AGENT_LOOP_TLS_CERT"), settings.get("AGENT_LOOP_TLS_KEY")
    certificate, key, made_for = folder / "cert.pem", folder / "key.pem", folder / "self-signed"
    names = server_names(settings)
    if not any(own):
        # A person's own stays, whatever is set now; what was made here follows the domain and is made again in time.
        fits = not made_for.is_file() or (made_for.read_text().split() == names and not _ends_soon(certificate))
        if fits and certificate.is_file() and key.is_file() and _problem(certificate, key) is None:
            return []
        _self_signed(certificate, key, names)
        made_for.write_text(" ".join(names))
        return [f"Made a self-signed certificate in {folder}; AGENT_LOOP_TLS_CERT and _KEY name your own."]
    if not all(own):
        raise StackError("AGENT_LOOP_TLS_CERT and AGENT_LOOP_TLS_KEY go together; only one is set. Set both.")
    # Nothing is put in place before the pair was tried: what is served now stays until then.
    if problem := _problem(Path(str(own[0])), Path(str(own[1]))):
        raise StackError(problem)
    for source, target in zip(own, (certificate, key), strict=True):
        draft = target.with_suffix(".tmp")
        draft.unlink(missing_ok=True)
        shutil.copyfile(str(source), draft)
        draft.chmod(0o444)
        draft.replace(target)
    made_for.unlink(missing_ok=True)
    return []


def _signed_by_itself(certificate: Path) -> bool:
    words = ["openssl", "x509", "-in", str(certificate), "-noout", "-subject", "-issuer"]
    lines = subprocess.run(words, capture_output=True, text=True, check=False).stdout.splitlines()
    return len({line.partition("=")[2] for line in lines}) == 1


def _ends_soon(certificate: Path) -> bool:
    words = ["openssl", "x509", "-in", str(certificate), "-noout", "-checkend", str(RENEWED * 24 * 3600)]
    return subprocess.run(words, capture_output=True, check=False).returncode != 0


def _problem(certificate: Path, key: Path) -> str | None:
    """What is wrong with a pair of PEM files, as a line for the person; None when a server can use it."""
    texts: list[str] = []
    for path, variable in ((certificate, "AGENT_LOOP_TLS_CERT"), (key, "AGENT_LOOP_TLS_KEY")):
        try:
            texts.append(path.read_text())
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not text"
            return f"Cannot read {path}: {reason}, in {variable}. Name a readable PEM file."
    if "-----BEGIN CERTIFICATE-----" not in texts[0]:
        return f"No certificate in {certificate}, in AGENT_LOOP_TLS_CERT. Name a PEM file: BEGIN CERTIFICATE."
    if "PRIVATE KEY-----" not in texts[1]:
        return f"No private key in {key}, in AGENT_LOOP_TLS_KEY. Name a PEM file: BEGIN PRIVATE KEY."
    if "ENCRYPTED" in texts[1]:
        return f"The key {key} has a passphrase, which a server cannot type. Take it off: openssl pkey -in … -out …"
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key)
    except (ssl.SSLError, OSError) as error:
        return f"{certificate} and the key {key} do not fit together ({error}). Give a matching PEM pair."
    return None


def _self_signed(certificate: Path, key: Path, names: Sequence[str]) -> None:
    others = ",".join([*(f"DNS:{name}" for name in names), "IP:127.0.0.1"])
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-days", str(DAYS), "-subj", f"/CN={names[0]}", "-addext", f"subjectAltName={others}"]
    drafts = key.with_suffix(".tmp"), certificate.with_suffix(".tmp")
    for draft in drafts:
        draft.unlink(missing_ok=True)
    try:
        command += ["-keyout", str(drafts[0]), "-out", str(drafts[1])]
        done = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError as error:
        raise StackError("openssl is missing, for a first certificate. apt-get install openssl.") from error
    if done.returncode != 0:
        raise StackError(f"openssl made no certificate for '{names[0]}': {done.stderr.strip().splitlines()[-1]}")
    for draft, target in zip(drafts, (key, certificate), strict=True):
        draft.chmod(0o444)
        draft.replace(target)
