"""The page's files: a strict policy, nothing from elsewhere, and only the files that belong to it."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from service import web
from tests.fakes.server import serving

pytestmark = [pytest.mark.anyio, pytest.mark.in_image]


@pytest.fixture
def client() -> httpx.AsyncClient:
    app = FastAPI()
    app.include_router(web.router)
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test")


class TestFiles:
    @pytest.mark.parametrize("name", sorted(web.FILES))
    async def test_each_is_served_with_the_policy(self, client: httpx.AsyncClient, name: str) -> None:
        """With its type, the strict headers, and 304 for whoever has it."""
        path = "/" if name == "index.html" else f"/web/{name}"
        answer = await client.get(path)
        assert answer.status_code == 200
        assert answer.headers["content-type"] == web.FILES[name]
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "*" not in policy
        again = await client.get(path, headers={"If-None-Match": answer.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
        await client.aclose()

    @pytest.mark.parametrize(
        "name", ["", "nope.js", "__init__.py", "..%2f__init__.py", "%2e%2e/settings.py", "page.js/"]
    )
    async def test_nothing_else_is_served(self, client: httpx.AsyncClient, name: str) -> None:
        """No source, no other folder."""
        assert (await client.get(f"/web/{name}")).status_code in (404, 307)
        await client.aclose()

    @pytest.mark.parametrize("name", sorted(web.FILES))
    def test_nothing_is_loaded_from_elsewhere(self, name: str) -> None:
        """No address of another host, no inline script, handler or style, no parsing of text as HTML."""
        text = web.load(name).body.decode()
        text = text.replace('xmlns="http://www.w3.org/2000/svg"', "")
        assert not re.search(r"https?://|//[a-z]+\.[a-z]", text)
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|\bstyle=", text)
        assert not re.search(r"<script(?![^>]*src=)|\son[a-z]+=", text)

    async def test_the_service_serves_it(self, tmp_path: Path) -> None:
        """The page is part of the application, with a key or without, beside the API."""
        async with serving(tmp_path, api_key="al-test-key-0123456789") as service:
            answer = await service.client.get("/")
            assert (answer.status_code, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
            assert (await service.client.get("/web/page.js")).status_code == 200
            assert (await service.client.get("/v1/models")).status_code == 401

    def test_every_file_of_the_folder_is_in_the_list(self) -> None:
        """A new file is either listed or no part of the page."""
        there = {each.name for each in files(web).iterdir() if each.is_file() and not each.name.endswith(".py")}
        assert there == set(web.FILES)
