"""What one can say about an image: its parts (SBOM), their known faults (scan), who made it (signature).

Each tool is one static program. It comes as a file from the person, or is built from its Go module, whose content
Go's checksum database vouches for.
"""

from __future__ import annotations

import enum
import json
import re
from dataclasses import dataclass

import dagger
from dagger import dag, enum_type

from agent_loop_ci import caches, environment
from agent_loop_ci.bases import PYTHON
from agent_loop_ci.errors import BadArgument


@dataclass(frozen=True)
class Tool:
    """A program that is built from a Go module."""

    name: str
    package: str
    module: str
    version: str


SYFT = Tool("syft", "github.com/anchore/syft/cmd/syft", "github.com/anchore/syft", "v1.57.0")
GRYPE = Tool("grype", "github.com/anchore/grype/cmd/grype", "github.com/anchore/grype", "v0.121.2")
COSIGN = Tool("cosign", "github.com/sigstore/cosign/v3/cmd/cosign", "github.com/sigstore/cosign/v3", "v3.1.3")

GO = "go1.27.3"
"""The Go that builds them: the distribution's own is too old, and fetches this one as a module like any other."""


@enum_type
class ToolName(enum.Enum):
    """One of the programs."""

    SYFT = "syft"
    """Lists what is in an image."""

    GRYPE = "grype"
    """Looks up known vulnerabilities."""

    COSIGN = "cosign"
    """Signs and verifies."""

    def build(self) -> dagger.File:
        """The program, built from its Go module."""
        return built({tool.name: tool for tool in (SYFT, GRYPE, COSIGN)}[self.value])


@enum_type
class SbomFormat(enum.Enum):
    """The document's format."""

    SPDX = "spdx-json"
    """SPDX 2.3, JSON."""

    CYCLONEDX = "cyclonedx-json"
    """CycloneDX 1.6, JSON."""


@enum_type
class Severity(enum.Enum):
    """How bad a vulnerability is."""

    LOW = "low"
    """Low and worse."""

    MEDIUM = "medium"
    """Medium and worse."""

    HIGH = "high"
    """High and critical."""

    CRITICAL = "critical"
    """Critical alone."""


@dataclass(frozen=True)
class Subject:
    """What a signature is about: an image's name and its manifest's digest."""

    reference: str
    digest: str

    def __post_init__(self) -> None:
        if not re.fullmatch(r"sha256:[0-9a-f]{64}", self.digest):
            raise BadArgument(f"Not a digest: '{self.digest}'. Give sha256: and 64 hexadecimal digits.")

    def payload(self) -> str:
        """The text that is signed.

        Format: "simple signing" of containers/image, which cosign uses for images in registries too.
        """
        critical = {
            "identity": {"docker-reference": self.reference},
            "image": {"docker-manifest-digest": self.digest},
            "type": "cosign container image signature",
        }
        return json.dumps({"critical": critical, "optional": None}, separators=(",", ":"))


def built(tool: Tool) -> dagger.File:
    """The program of `tool`, made by Go from its module."""
    script = "\n".join(
        [
            "cd /build",
            "go mod init build 2>/dev/null",
            f"go get -tool {tool.package}@{tool.version}",  # without a version it would take the newest
            f"go build -trimpath -ldflags='-s -w -X main.version={tool.version}' -o /out/{tool.name} {tool.package}",
        ]
    )
    container = environment.packages(environment.python(PYTHON), ("golang-go",))
    for name, value in {"GOTOOLCHAIN": GO, "CGO_ENABLED": "0", "GOFLAGS": "-buildvcs=false"}.items():
        container = container.with_env_variable(name, value)
    return (
        caches.go(container)
        .with_directory("/build", dag.directory())
        .with_exec(["sh", "-ec", script])
        .file(f"/out/{tool.name}")
    )


def _with(tool: Tool, given: dagger.File | None) -> dagger.Container:
    """The plain base with the program at /usr/local/bin."""
    path = f"/usr/local/bin/{tool.name}"
    return environment.python(PYTHON).with_file(path, given or built(tool), permissions=0o755)


def sbom(image: dagger.Container, form: SbomFormat, name: str, version: str, tool: dagger.File | None) -> dagger.File:
    """The image's parts as a document in format `form`. Read from its files: no registry, no Docker is asked."""
    words = ["syft", "scan", "dir:/image", "--source-name", name, "--source-version", version]
    return (
        _with(SYFT, tool)
        .with_env_variable("SYFT_CHECK_FOR_APP_UPDATE", "false")
        .with_mounted_directory("/image", image.rootfs(), read_only=True)
        .with_exec([*words, "--output", f"{form.value}=/out/sbom.json"])
        .file("/out/sbom.json")
    )


def scan(
    document: dagger.File,
    database: dagger.Directory,
    fail_on: Severity,
    tool: dagger.File | None,
    *,
    only_fixed: bool = False,
) -> dagger.File:
    """The vulnerabilities that `database` knows of the packages in `document`; the step fails from `fail_on` on.

    With `only_fixed` those without a fixed version neither fail it nor are reported: nobody can act on them.
    """
    settings = {
        "GRYPE_CHECK_FOR_APP_UPDATE": "false",
        "GRYPE_DB_AUTO_UPDATE": "false",
        "GRYPE_DB_VALIDATE_AGE": "false",  # how old it may be is for whoever brings it to say
        "GRYPE_DB_CACHE_DIR": "/database",
    }
    container = _with(GRYPE, tool)
    for key, value in settings.items():
        container = container.with_env_variable(key, value)
    words = ["grype", "sbom:/sbom.json", "--fail-on", fail_on.value, *(["--only-fixed"] if only_fixed else [])]
    return (
        container.with_mounted_directory("/database", database)
        .with_mounted_file("/sbom.json", document)
        .with_exec([*words, "--output", "json=/out/scan.json", "--output", "table"])
        .file("/out/scan.json")
    )


def sign(subject: Subject, key: dagger.Secret, password: dagger.Secret, tool: dagger.File | None) -> dagger.File:
    """A Sigstore bundle with the signature of `subject`; nothing is sent anywhere."""
    return (
        _with(COSIGN, tool)
        .with_new_file("/payload.json", subject.payload())
        .with_directory("/out", dag.directory())
        .with_mounted_secret("/run/cosign.key", key)
        .with_secret_variable("COSIGN_PASSWORD", password)
        .with_exec(
            [
                *("cosign", "sign-blob", "--key", "/run/cosign.key", "--bundle", "/out/bundle.json", "--yes"),
                *("--use-signing-config=false", "--tlog-upload=false", "/payload.json"),
            ]
        )
        .file("/out/bundle.json")
    )


def verified(
    subject: Subject, bundle: dagger.File, public_key: dagger.File, tool: dagger.File | None
) -> dagger.Container:
    """A container in which cosign accepted `bundle` as the signature of `subject` by `public_key`."""
    return (
        _with(COSIGN, tool)
        .with_new_file("/payload.json", subject.payload())
        .with_mounted_file("/bundle.json", bundle)
        .with_mounted_file("/cosign.pub", public_key)
        .with_exec(
            [
                *("cosign", "verify-blob", "--key", "/cosign.pub", "--bundle", "/bundle.json"),
                *("--insecure-ignore-tlog=true", "/payload.json"),
            ]
        )
    )
