"""Images that a Dockerfile cannot describe, pushed to a registry on this machine: what arrives there."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import uuid4

import pytest

from ci.engine import Session
from tests.ci.registry import Registry, running

pytestmark = [pytest.mark.containers, pytest.mark.timeout(600)]

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """An empty one."""
    with running(tmp_path_factory.mktemp("registry")) as made:
        yield made


def publish(query: str) -> str:
    """Run a query that ends in `publish`; the digest."""
    session = Session()
    try:
        answer = session.answer(query)[1]
    finally:
        session.close()
    assert "errors" not in answer, answer["errors"]
    value = answer["data"]
    while isinstance(value, dict):
        (value,) = value.values()
    return value.partition("@")[2]


def test_an_annotation_arrives(registry: Registry) -> None:
    """An annotation is in the manifest, which no Dockerfile can say."""
    name = f"made/{uuid4().hex}"
    digest = publish(
        '{container{withNewFile(path:"/a", contents:"1"){withAnnotation(name:"org.example.who", value:"me"){'
        f'publish(address:"{registry.address}/{name}:1")}}}}}}}}'
    )
    manifest = registry.get(f"{name}/manifests/{digest}", MANIFEST)
    assert manifest["annotations"] == {"org.example.who": "me"}
    assert registry.get(f"{name}/manifests/1", MANIFEST) == manifest


def test_variants_arrive_as_one_image(registry: Registry) -> None:
    """Each platform's image below one name."""
    name = f"made/{uuid4().hex}"
    session = Session()
    try:
        ids = [
            session.answer(f'{{container(platform:"{p}"){{withNewFile(path:"/a", contents:"{p}"){{id}}}}}}')[1]
            for p in ("linux/amd64", "linux/arm64")
        ]
        found = ", ".join(f'"{each["data"]["container"]["withNewFile"]["id"]}"' for each in ids)
        answer = session.answer(
            f'{{container{{publish(address:"{registry.address}/{name}:1", platformVariants:[{found}])}}}}'
        )[1]
    finally:
        session.close()
    assert "errors" not in answer, answer["errors"]
    digest = answer["data"]["container"]["publish"].partition("@")[2]
    index = registry.get(f"{name}/manifests/{digest}", INDEX)
    assert [m["platform"]["architecture"] for m in index["manifests"]] == ["amd64", "arm64"]
    for each in index["manifests"]:
        layers = registry.get(f"{name}/manifests/{each['digest']}", MANIFEST)["layers"]
        assert len(layers) == 1
