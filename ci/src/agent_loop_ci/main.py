"""The module's functions: what a person or a CI job calls. Each is one line; the work is in the modules beside it."""

from __future__ import annotations

import secrets
from typing import Annotated

import dagger
from dagger import Doc, check, field, function, object_type

from agent_loop_ci import checks, publishing, stages, supply, training
from agent_loop_ci.labels import Release
from agent_loop_ci.sources import (
    ImagesSource,
    LintedSource,
    OpsSource,
    ServiceSource,
    TestedSource,
    TrainerSource,
)

PlatformOption = Annotated[dagger.Platform | None, Doc("linux/amd64 or linux/arm64; default: the engine's own")]


@object_type
class Image:
    """An image of the system."""

    name: str = field()
    """Its short name: runtime, dev, ops, training."""

    container: dagger.Container = field()
    """What it is made of."""

    @function
    def tarball(self) -> dagger.File:
        """The image as a file that `docker load` takes."""
        return self.container.as_tarball()


@object_type
class AgentLoop:
    """Builds, tests, trains and publishes Agent Loop."""

    revision: Annotated[str, Doc("the commit's hash, for the images' labels")] = "unknown"
    created: Annotated[str, Doc("the commit's time, RFC 3339, for the images' labels")] = "1970-01-01T00:00:00Z"
    version: Annotated[str, Doc("the version, for the images' labels")] = "0.1.0"

    @function
    def build_builder(self, source: ServiceSource, platform: PlatformOption = None) -> dagger.Container:
        """The container that installs the service's locked environment into /app/.venv."""
        return stages.builder(source, "service", platform=platform)

    @function
    def build_runtime(self, source: ServiceSource, platform: PlatformOption = None) -> dagger.Container:
        """The service's image."""
        return stages.runtime(source, self._release(), platform=platform)

    @function
    def build_dev(self, source: ServiceSource) -> dagger.Container:
        """The service's image for development: it reloads when a source file changes."""
        return stages.dev(source, self._release())

    @function
    def build_test(self, source: TestedSource) -> dagger.Container:
        """The image the test suite runs in."""
        return stages.test(source, self._release())

    @function
    def build_training(
        self,
        source: TrainerSource,
        tools: Annotated[bool, Doc("with Jupyter Lab and Weights & Biases")] = False,
        torch_index: Annotated[str, Doc("a further package index, for torch built for another CUDA")] = "",
        torch_requirements: Annotated[
            dagger.File | None, Doc("your own hash-locked set instead of requirements/trainer.txt")
        ] = None,
    ) -> dagger.Container:
        """The trainer's image (CUDA by torch's own wheels)."""
        return stages.training(
            source, self._release(), tools=tools, torch_index=torch_index, requirements=torch_requirements
        )

    @function
    def build_ops(self, source: OpsSource, platform: PlatformOption = None) -> dagger.Container:
        """The image of the jobs beside the service: drift, GPU monitor, backup."""
        return stages.ops(source, self._release(), platform=platform)

    @function
    def images(
        self,
        source: ImagesSource,
        names: Annotated[list[str] | None, Doc("which: runtime, dev, ops, training; default: all four")] = None,
    ) -> list[Image]:
        """The system's images, each with its name."""
        chosen = publishing.images(source, self._release(), names)
        return [Image(name=name, container=container) for name, container in chosen.items()]

    @check
    @function
    async def test(
        self,
        source: TestedSource,
        select: Annotated[str, Doc("only tests that this pytest expression (-k) matches")] = "",
        keep: Annotated[bool, Doc("return the reports of a failed suite too; see its file exit-code")] = False,
    ) -> dagger.Directory:
        """Run the suite in the test image; returns junit.xml and coverage.xml, fails when a test fails."""
        return await checks.reports(checks.suite(source, self._release(), select), keep=keep)

    @check
    @function
    async def lint(self, source: LintedSource) -> str:
        """Check style and formatting of every Python file with ruff."""
        return await checks.linted(source).stdout()

    @check
    @function
    async def smoke(self, source: ServiceSource) -> str:
        """Start the service in its image, ask it, stop it; prints what was seen."""
        return await checks.smoked(source, self._release()).stdout()

    @function(cache="never")  # pyright: ignore[reportCallIssue, reportUntypedFunctionDecorator]
    def train(
        self,
        source: TrainerSource,
        model: Annotated[str, Doc("a preset (gemma-2b, gemma-9b, tiny …) or a Hugging Face model")] = "gemma-2b",
        data: Annotated[dagger.File | None, Doc("chats, JSONL; default: the trainer's own example")] = None,
        run_id: Annotated[str, Doc("the run to go on with; default: a new one")] = "",
        gpu: Annotated[bool, Doc("give the step the engine's GPUs")] = False,
        hub_token: Annotated[dagger.Secret | None, Doc("Hugging Face token, for gated models")] = None,
        options: Annotated[list[str] | None, Doc("further words for 'python -m trainer train'")] = None,
        torch_index: Annotated[str, Doc("as for build-training")] = "",
        torch_requirements: Annotated[dagger.File | None, Doc("as for build-training")] = None,
    ) -> dagger.Directory:
        """Train in the training image; returns the run's folder: adapter, metrics, plots, GGUF if asked for."""
        call = secrets.token_hex(6)
        run = training.Run(run_id or call, call, model, data, hub_token, gpu, tuple(options or ()))
        return training.trained(self.build_training(source, False, torch_index, torch_requirements), run)

    @function(cache="never")  # pyright: ignore[reportCallIssue, reportUntypedFunctionDecorator]
    async def publish(
        self,
        source: ImagesSource,
        address: Annotated[str, Doc("where to: registry/name:tag")],
        image: Annotated[str, Doc("runtime, dev, ops or training")] = "runtime",
        platforms: Annotated[list[dagger.Platform] | None, Doc("of runtime and ops: one image for all")] = None,
        username: Annotated[str, Doc("who signs in to the registry")] = "",
        password: Annotated[dagger.Secret | None, Doc("the registry's password or token")] = None,
    ) -> str:
        """Push an image; returns its reference with the digest."""
        target = publishing.Target(address, username, password)
        return await publishing.publish(source, self._release(), image, tuple(platforms or ()), target)

    @function
    def tool(self, name: Annotated[supply.ToolName, Doc("SYFT, GRYPE or COSIGN")]) -> dagger.File:
        """A program of the supply chain, built from its Go module: keep it, and give it to the others as --tool."""
        return name.build()

    @function
    def sbom(
        self,
        source: ImagesSource,
        image: Annotated[str, Doc("which of ours: runtime, dev, ops or training")] = "runtime",
        container: Annotated[dagger.Container | None, Doc("another image instead, by its reference")] = None,
        format: Annotated[supply.SbomFormat, Doc("SPDX or CYCLONEDX, as JSON")] = supply.SbomFormat.SPDX,
        name: Annotated[str, Doc("what the document calls the image; default: the image's own name")] = "",
        tool: Annotated[dagger.File | None, Doc("syft's program; default: built from its Go module")] = None,
    ) -> dagger.File:
        """What is in an image: every package with version and licence, by syft."""
        described = container or publishing.images(source, self._release(), [image])[image]
        title = name or ("image" if container else f"agent-loop {image}")
        return supply.sbom(described, format, title, self.version, tool)

    @function
    def scan(
        self,
        sbom: Annotated[dagger.File, Doc("what 'sbom' returned")],
        database: Annotated[dagger.Directory, Doc("grype's database: the folder 'grype db status' names")],
        fail_on: Annotated[supply.Severity, Doc("findings from here on fail the call")] = supply.Severity.HIGH,
        only_fixed: Annotated[bool, Doc("count only what a newer version of the package fixes")] = False,
        tool: Annotated[dagger.File | None, Doc("grype's program; default: built from its Go module")] = None,
    ) -> dagger.File:
        """Known vulnerabilities of an SBOM's packages, as JSON, by grype; fails on high and critical ones."""
        return supply.scan(sbom, database, fail_on, tool, only_fixed=only_fixed)

    @function
    def sign(
        self,
        digest: Annotated[str, Doc("the image manifest's digest: sha256:…")],
        reference: Annotated[str, Doc("what the image is called: registry/name")],
        key: Annotated[dagger.Secret, Doc("cosign's private key")],
        password: Annotated[dagger.Secret, Doc("the key's password")],
        tool: Annotated[dagger.File | None, Doc("cosign's program; default: built from its Go module")] = None,
    ) -> dagger.File:
        """A signature of an image's digest as a bundle, made by cosign without any network."""
        return supply.sign(supply.Subject(reference, digest), key, password, tool)

    @function
    async def verify(
        self,
        digest: Annotated[str, Doc("the image manifest's digest: sha256:…")],
        reference: Annotated[str, Doc("what the image is called: registry/name")],
        bundle: Annotated[dagger.File, Doc("what 'sign' returned")],
        public_key: Annotated[dagger.File, Doc("cosign's public key")],
        tool: Annotated[dagger.File | None, Doc("cosign's program; default: built from its Go module")] = None,
    ) -> str:
        """Check such a bundle; fails when it is not of this digest, name and key."""
        return await supply.verified(supply.Subject(reference, digest), bundle, public_key, tool).stderr()

    def _release(self) -> Release:
        return Release(self.revision, self.created, self.version)
