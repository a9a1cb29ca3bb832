"""What the supply chain says of our own runtime image: its parts, their faults, who signed it. The real programs.

The programs come from the cache of an earlier run, else from the PATH, else they are built from their Go modules.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import sqlite3
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from agent_loop_ci import supply

from tests.ci.module.conftest import ROOT
from tests.command import agent_loop

# The first test to need a program may have to build it, minutes on two cores.
pytestmark = [pytest.mark.containers, pytest.mark.slow, pytest.mark.timeout(1800)]

CACHE = Path(os.environ.get("AGENT_LOOP_CACHE") or Path.home() / ".cache" / "agent-loop") / "tools"

Call = Callable[..., subprocess.CompletedProcess[str]]
Tools = Callable[[supply.Tool], Path]


def call(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """`agent-loop call` with these words, in the repository."""
    return agent_loop("call", *words, **environment)


def succeeded(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout.strip()


@pytest.fixture(scope="session")
def tools() -> Tools:
    """A program of the supply chain by its pin; what is built once is kept for the next run."""

    def program(tool: supply.Tool) -> Path:
        kept = CACHE / f"{tool.name}-{tool.version}"
        if kept.exists():
            return kept
        if there := shutil.which(tool.name):
            return Path(there)
        CACHE.mkdir(parents=True, exist_ok=True)
        made = kept.with_suffix(f".{os.getpid()}")
        try:
            succeeded(call("tool", f"--name={tool.name.upper()}", f"--output={made}"))
            made.rename(kept)
        finally:
            made.unlink(missing_ok=True)
        return kept

    return program


@pytest.fixture(scope="module")
def documents(tools: Tools, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Our runtime image's bill of materials in both formats."""
    folder = tmp_path_factory.mktemp("documents")
    found: dict[str, Path] = {}
    for form in ("SPDX", "CYCLONEDX"):
        found[form] = folder / f"{form}.json"
        words = (f"--format={form}", f"--tool={tools(supply.SYFT)}", f"--output={found[form]}")
        succeeded(call("--version=1.2.3", "sbom", *words))
    return found


def locked(package: str) -> str:
    """The version of a package in the service's locked set."""
    lines = (ROOT / "requirements" / "service.txt").read_text().splitlines()
    return next(line.split("==")[1].split()[0].rstrip("\\") for line in lines if line.startswith(f"{package}=="))


def test_an_spdx_document_names_every_kind_of_part(documents: dict[str, Path]) -> None:
    """Python packages at their locked versions, Debian's packages, libraries copied in, all by package URL."""
    document = json.loads(documents["SPDX"].read_text())
    assert document["spdxVersion"] == "SPDX-2.3"
    assert document["name"] == "agent-loop runtime"
    parts = {p["name"]: p.get("versionInfo") for p in document["packages"]}
    assert parts["fastapi"] == locked("fastapi")
    assert {"python3.13", "ca-certificates", "libc6", "libgomp1"} <= set(parts)
    addresses = {r["referenceLocator"] for p in document["packages"] for r in p.get("externalRefs", [])}
    assert f"pkg:pypi/fastapi@{locked('fastapi')}" in addresses
    assert any(a.startswith("pkg:deb/debian/libc6@") for a in addresses)


def test_a_cyclonedx_document_names_the_same_parts(documents: dict[str, Path]) -> None:
    """Another format of the same list."""
    document = json.loads(documents["CYCLONEDX"].read_text())
    assert document["bomFormat"] == "CycloneDX"
    assert document["metadata"]["component"]["name"] == "agent-loop runtime"
    assert document["metadata"]["component"]["version"] == "1.2.3"
    components = {(c["name"], c.get("version")) for c in document["components"] if c["type"] != "file"}
    packages = json.loads(documents["SPDX"].read_text())["packages"]
    described = {p["name"] for p in packages if p.get("primaryPackagePurpose") != "FILE"}
    assert ("fastapi", locked("fastapi")) in components
    assert {name for name, _ in components} - described <= {"debian"}  # the distribution is a part of its own here


# Tables of grype's sixth database format that a finding needs; 'grype db import' adds the others, empty.
SCHEMA = """
create table db_metadata (build_timestamp datetime not null, model integer not null, revision integer not null,
  addition integer not null);
create table blobs (id integer primary key, value text not null);
create table providers (id text primary key, version text, processor text, date_captured datetime, input_digest text);
create table vulnerability_handles (id integer primary key, name text not null, status text not null,
  published_date datetime, modified_date datetime, withdrawn_date datetime, provider_id text not null,
  blob_id integer);
create table packages (id integer primary key, ecosystem text, name text);
create table affected_package_handles (id integer primary key, vulnerability_id integer not null,
  operating_system_id integer, package_id integer, blob_id integer);
"""


@dataclass(frozen=True)
class Fault:
    """A made-up vulnerability of a Python package."""

    package: str
    severity: str
    versions: str
    """Constraint in grype's words: `<0.1`."""


def database(folder: Path, grype: Path, faults: list[Fault]) -> Path:
    """A grype database that knows these faults, imported by grype itself."""
    file = folder / "vulnerability.db"
    with sqlite3.connect(file) as made:
        made.executescript(SCHEMA)
        made.execute("insert into db_metadata values ('2026-01-02 03:04:05+00:00', 6, 1, 0)")
        made.execute("insert into providers values ('github', '1', 'of a test', '2026-01-02 03:04:05+00:00', '')")
        for number, fault in enumerate(faults, start=1):
            name = f"GHSA-test-{number}"
            severity = {"scheme": "CHML", "value": fault.severity, "rank": 1}
            ranges = [{"version": {"type": "python", "constraint": fault.versions}, "fix": {"state": "not-fixed"}}]
            for key, blob in (
                (2 * number, {"id": name, "severities": [severity]}),
                (2 * number + 1, {"ranges": ranges}),
            ):
                made.execute("insert into blobs values (?, ?)", (key, json.dumps(blob)))
            made.execute(
                "insert into vulnerability_handles (id, name, status, provider_id, blob_id) values (?, ?, ?, ?, ?)",
                (number, name, "active", "github", 2 * number),
            )
            made.execute("insert into packages values (?, 'python', ?)", (number, fault.package))
            made.execute(
                "insert into affected_package_handles (id, vulnerability_id, package_id, blob_id) values (?, ?, ?, ?)",
                (number, number, number, 2 * number + 1),
            )
    made.close()
    root = folder / "db"
    settings = {"GRYPE_DB_CACHE_DIR": str(root), "GRYPE_CHECK_FOR_APP_UPDATE": "false"}
    done = subprocess.run(
        [grype, "db", "import", file], env={**os.environ, **settings}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return root


@dataclass(frozen=True)
class Scan:
    """Calls `scan` on our runtime image's document."""

    document: Path
    grype: Path
    folder: Path

    def __call__(self, faults: list[Fault], *options: str) -> subprocess.CompletedProcess[str]:
        """With a database of these faults."""
        words = (f"--sbom={self.document}", f"--database={database(self.folder, self.grype, faults)}")
        return call("scan", *words, f"--tool={self.grype}", *options, f"--output={self.report}")

    @property
    def report(self) -> Path:
        return self.folder / "scan.json"

    def found(self) -> list[tuple[str, str]]:
        """Package and severity of each finding in the report."""
        matches: list[Any] = json.loads(self.report.read_text())["matches"]
        return [(m["artifact"]["name"], m["vulnerability"]["severity"]) for m in matches]


@pytest.fixture
def scan(documents: dict[str, Path], tools: Tools, tmp_path: Path) -> Scan:
    return Scan(documents["SPDX"], tools(supply.GRYPE), tmp_path)


@pytest.mark.parametrize("severity", ["high", "critical"])
def test_a_package_known_to_be_bad_fails_the_call(scan: Scan, severity: str) -> None:
    """The exit status is grype's own, and the table of findings is shown."""
    done = scan([Fault("fastapi", severity, f"<={locked('fastapi')}")])
    assert done.returncode == 2  # grype: findings at or above the level
    assert "GHSA-test-1" in done.stdout + done.stderr
    assert not scan.report.exists()


def test_what_is_only_medium_is_reported_and_passes(scan: Scan) -> None:
    """The report is the call's result."""
    succeeded(scan([Fault("fastapi", "medium", f"<={locked('fastapi')}")]))
    assert scan.found() == [("fastapi", "Medium")]


def test_the_level_that_fails_is_the_caller_s(scan: Scan) -> None:
    """`--fail-on=MEDIUM` fails on what passed before."""
    assert scan([Fault("fastapi", "medium", f"<={locked('fastapi')}")], "--fail-on=MEDIUM").returncode == 2


def test_what_nobody_fixed_yet_can_be_left_out(scan: Scan) -> None:
    """A base image always has some of these; `--only-fixed` lets what can be acted on decide."""
    succeeded(scan([Fault("fastapi", "critical", f"<={locked('fastapi')}")], "--only-fixed"))
    assert scan.found() == []


def test_faults_of_other_versions_and_packages_are_not_ours(scan: Scan) -> None:
    """A clean image passes with no findings, though the database is not empty."""
    succeeded(scan([Fault("fastapi", "critical", "<0.1"), Fault("not-in-the-image", "critical", ">0")]))
    assert scan.found() == []


DIGEST = "sha256:" + "a" * 64
NAME = "registry.example/agent-loop"


@dataclass(frozen=True)
class Signed:
    """A signature, and the keys it was made with."""

    bundle: Path
    public: Path
    cosign: Path

    def verify(self, digest: str = DIGEST, *, name: str = NAME, public: Path | None = None) -> int:
        """Exit status of `verify`."""
        words = (f"--digest={digest}", f"--reference={name}", f"--bundle={self.bundle}")
        done = call("verify", *words, f"--public-key={public or self.public}", f"--tool={self.cosign}")
        return done.returncode


def keys(cosign: Path, folder: Path, password: str) -> Path:
    """Make cosign.key and cosign.pub in a folder."""
    folder.mkdir()
    subprocess.run(
        [cosign, "generate-key-pair"],
        cwd=folder,
        env={**os.environ, "COSIGN_PASSWORD": password},
        check=True,
        capture_output=True,
    )
    return folder


@pytest.fixture(scope="module")
def signed(tools: Tools, tmp_path_factory: pytest.TempPathFactory) -> Signed:
    """A digest signed with a key of this test."""
    cosign, folder, password = tools(supply.COSIGN), tmp_path_factory.mktemp("signed"), secrets.token_hex(8)
    pair = keys(cosign, folder / "keys", password)
    bundle = folder / "bundle.json"
    words = (f"--digest={DIGEST}", f"--reference={NAME}", f"--key=file://{pair / 'cosign.key'}")
    secret = ("--password=env://AL_TEST_PASSWORD", f"--tool={cosign}", f"--output={bundle}")
    succeeded(call("sign", *words, *secret, AL_TEST_PASSWORD=password))
    return Signed(bundle, pair / "cosign.pub", cosign)


def test_a_signature_is_accepted_by_its_key(signed: Signed) -> None:
    """Made and checked with no transparency log and no network."""
    assert signed.verify() == 0
    bundle = json.loads(signed.bundle.read_text())
    assert bundle["mediaType"].startswith("application/vnd.dev.sigstore.bundle")
    assert bundle["verificationMaterial"].get("tlogEntries", []) == []


def test_another_digest_name_or_key_is_refused(signed: Signed, tmp_path: Path) -> None:
    """One changed digit of the digest is enough."""
    other = keys(signed.cosign, tmp_path / "other", "x") / "cosign.pub"
    assert signed.verify(DIGEST[:-1] + "b") != 0
    assert signed.verify(name="registry.example/other") != 0
    assert signed.verify(public=other) != 0
