"""The proxy's files in the state folder: certificate and configuration.

Both lie in folders that the container's user may read (0755); the state folder around them is 0700, so nobody else on
the host can. A self-signed certificate is made at the first start; a person's own replaces it by path.
"""

from __future__ import annotations

import os
import shutil
import ssl
import subprocess
from pathlib import Path

from ci.stack.errors import StackError
from observability.nginx.render import Proxy, ProxyError, Split, write, write_split

DAYS = 825
"""Longest life that browsers take for a certificate of a private authority."""


def ensure(state: Path, *, grafana: bool) -> list[str]:
    """Write certificate and configuration where they are missing or changed; return lines that say what was made.

    `AGENT_LOOP_TLS_CERT` and `AGENT_LOOP_TLS_KEY` name a person's own certificate, `SERVER_NAME` the domain. Raises
    StackError for a certificate that cannot be read or does not fit its key.
    """
    said = _certificate(_readable(state / "tls"))
    folder = _readable(state / "nginx")
    proxy = Proxy(
        server_name=os.environ.get("SERVER_NAME", "_"),
        grafana="grafana:3000" if grafana else "",
        hsts=bool(os.environ.get("AGENT_LOOP_TLS_CERT")),
        public_https_port=int(os.environ.get("HTTPS_PORT", "443")),
    )
    try:
        if (folder / "split.conf").is_file():  # a canary's split stands
            kept = (folder / "split.conf").read_text()
            write(proxy, folder)
            (folder / "split.conf").write_text(kept)
        else:
            write(proxy, folder)
    except ProxyError as error:
        raise StackError(str(error)) from error
    return said


def split(state: Path, percent: int, variant: str, deployed: bool) -> None:
    """Write how new sessions are divided; the proxy sees it after a reload."""
    write_split(Split(percent=percent, deployed=deployed, variant=variant), _readable(state / "nginx"))


def _readable(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o755)
    return folder


def _certificate(folder: Path) -> list[str]:
    own = os.environ.get("AGENT_LOOP_TLS_CERT"), os.environ.get("AGENT_LOOP_TLS_KEY")
    certificate, key = folder / "cert.pem", folder / "key.pem"
    if not any(own):
        if certificate.is_file() and key.is_file() and _problem(certificate, key) is None:
            return []
        _self_signed(certificate, key)
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
    return []


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


def _self_signed(certificate: Path, key: Path) -> None:
    name = os.environ.get("SERVER_NAME", "localhost")
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-days", str(DAYS), "-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name},IP:127.0.0.1"]
    drafts = key.with_suffix(".tmp"), certificate.with_suffix(".tmp")
    for draft in drafts:
        draft.unlink(missing_ok=True)
    try:
        command += ["-keyout", str(drafts[0]), "-out", str(drafts[1])]
        done = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError as error:
        raise StackError("openssl is missing, for a first certificate. apt-get install openssl.") from error
    if done.returncode != 0:
        raise StackError(f"openssl made no certificate for '{name}': {done.stderr.strip().splitlines()[-1]}")
    for draft, target in zip(drafts, (key, certificate), strict=True):
        draft.chmod(0o444)
        draft.replace(target)
