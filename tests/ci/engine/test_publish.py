"""Images that a Dockerfile cannot describe, pushed to a registry on this machine: what arrives there."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
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


def ask(session: Session, query: str) -> Any:
    """The one leaf of a query."""
    answer = session.answer(query)[1]
    assert "errors" not in answer, answer["errors"]
    value: Any = answer["data"]
    while isinstance(value, dict):
        (value,) = value.values()
    return value


def test_an_annotation_arrives(registry: Registry) -> None:
    """An annotation is in the manifest, which no Dockerfile can say."""
    name = f"made/{uuid4().hex}"
    with Session() as session:
        published = ask(
            session,
            '{container{withNewFile(path:"/a", contents:"1"){withAnnotation(name:"org.example.who", value:"me"){'
            f'publish(address:"{registry.address}/{name}:1")}}}}}}}}',
        )
    digest = published.partition("@")[2]
    manifest = registry.get(f"{name}/manifests/{digest}", MANIFEST)
    assert manifest["annotations"] == {"org.example.who": "me"}
    assert registry.get(f"{name}/manifests/1", MANIFEST) == manifest


def test_variants_arrive_as_one_image(registry: Registry) -> None:
    """Each platform's image below one name."""
    name = f"made/{uuid4().hex}"
    with Session() as session:
        ids = [
            ask(session, f'{{container(platform:"{p}"){{withNewFile(path:"/a", contents:"{p}"){{id}}}}}}')
            for p in ("linux/amd64", "linux/arm64")
        ]
        variants = json.dumps(ids)
        published = ask(
            session, f'{{container{{publish(address:"{registry.address}/{name}:1", platformVariants:{variants})}}}}'
        )
    digest = published.partition("@")[2]
    index = registry.get(f"{name}/manifests/{digest}", INDEX)
    assert [m["platform"]["architecture"] for m in index["manifests"]] == ["amd64", "arm64"]
    for each in index["manifests"]:
        layers = registry.get(f"{name}/manifests/{each['digest']}", MANIFEST)["layers"]
        assert len(layers) == 1


def test_a_login_serves_pushing_starting_from_and_building_on(tmp_path: Path) -> None:
    """Whoever says no login is refused; a login counts for the session, until it is taken back."""
    with running(tmp_path, private=True) as registry:
        base = f"{registry.address}/made/{uuid4().hex}:1"
        with Session() as session:
            secret = ask(session, f'{{setSecret(name:"word", plaintext:"{registry.word}"){{id}}}}')
            file = f'withNewFile(path:"/a", contents:"{uuid4()}")'
            login = f'withRegistryAuth(address:"{registry.address}", username:"{registry.user}", secret:"{secret}")'
            refused = session.answer(f'{{container{{{file}{{publish(address:"{base}")}}}}}}')[1]
            assert "no basic auth credentials" in refused["errors"][0]["message"]
            assert ask(session, f'{{container{{{file}{{{login}{{publish(address:"{base}")}}}}}}}}').startswith(base)

        with Session() as session:
            refused = session.answer(f'{{container{{from(address:"{base}"){{file(path:"/a"){{contents}}}}}}}}')[1]
            assert "errors" in refused
            secret = ask(session, f'{{setSecret(name:"word", plaintext:"{registry.word}"){{id}}}}')
            login = f'withRegistryAuth(address:"{registry.address}", username:"{registry.user}", secret:"{secret}")'
            read = f'from(address:"{base}"){{file(path:"/a"){{size}}}}'
            assert ask(session, f"{{container{{{login}{{{read}}}}}}}") == 36
            left = f'withoutRegistryAuth(address:"{registry.address}"){{{file}{{publish(address:"{base}2")}}}}'
            refused = session.answer(f"{{container{{{left}}}}}")[1]
            assert "no basic auth credentials" in refused["errors"][0]["message"]
