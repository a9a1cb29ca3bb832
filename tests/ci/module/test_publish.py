"""`publish` to a registry on this machine (Debian's docker-registry), with and without provenance."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.ci.registry import Registry, running
from tests.command import agent_loop

pytestmark = [pytest.mark.containers, pytest.mark.slow, pytest.mark.timeout(1800)]

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
DOCKER = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """An empty one."""
    with running(tmp_path_factory.mktemp("registry")) as made:
        yield made


def publish(address: str, **environment: str) -> str:
    """Publish the runtime image; the digest that the call prints."""
    words = ["call", "--created=2026-01-02T03:04:05Z", "publish", f"--address={address}"]
    done = agent_loop(*words, **environment)
    assert done.returncode == 0, done.stderr[-4000:]
    name, _, digest = done.stdout.strip().partition("@")
    assert name == address
    return digest


def platform_manifest(index: dict[str, Any]) -> str:
    """The digest of the one manifest that is an image."""
    (found,) = [m["digest"] for m in index["manifests"] if m["platform"]["os"] != "unknown"]
    return found


def test_provenance_says_how_the_image_was_made_and_changes_nothing_in_it(registry: Registry) -> None:
    """An attestation beside an image whose manifest is the same as without one."""
    plain = publish(f"{registry.address}/agent-loop/plain:1")
    attested = publish(f"{registry.address}/agent-loop/attested:1", AGENT_LOOP_PROVENANCE="1")

    image = registry.get(f"agent-loop/plain/manifests/{plain}", MANIFEST, INDEX, DOCKER, DOCKER_LIST)
    assert "layers" in image or platform_manifest(image)
    index = registry.get(f"agent-loop/attested/manifests/{attested}", INDEX, DOCKER_LIST)
    assert platform_manifest(index) == (plain if "layers" in image else platform_manifest(image))

    (note,) = [m for m in index["manifests"] if m["platform"]["os"] == "unknown"]
    assert note["annotations"]["vnd.docker.reference.type"] == "attestation-manifest"
    assert note["annotations"]["vnd.docker.reference.digest"] == platform_manifest(index)
    layers = registry.get(f"agent-loop/attested/manifests/{note['digest']}", MANIFEST)["layers"]
    kinds = [layer["annotations"]["in-toto.io/predicate-type"] for layer in layers]
    assert any(kind.startswith("https://slsa.dev/provenance/") for kind in kinds)
    statement = registry.get(f"agent-loop/attested/blobs/{layers[0]['digest']}")
    assert statement["subject"][0]["digest"]["sha256"] == platform_manifest(index).removeprefix("sha256:")


def test_what_was_published_is_the_service(registry: Registry) -> None:
    """Tag and digest name the same manifest, and its configuration starts the service."""
    digest = publish(f"{registry.address}/agent-loop/again:1")
    by_tag = registry.get("agent-loop/again/manifests/1", MANIFEST, DOCKER)
    assert by_tag == registry.get(f"agent-loop/again/manifests/{digest}", MANIFEST, DOCKER)
    config = registry.get(f"agent-loop/again/blobs/{by_tag['config']['digest']}")
    assert config["config"]["Entrypoint"] == ["/app/.venv/bin/python", "-m", "service"]
