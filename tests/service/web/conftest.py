"""A running service with the page, and a headless Chromium that sees it."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, Page, async_playwright

from service.backends.scripted import ScriptedBackend
from service.backends.scripts import DEMO, Script
from tests.fakes.server import Serving, serving

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or "/usr/bin/chromium"
FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"),
]

Open = Callable[..., Awaitable[Page]]


@pytest.fixture(scope="module")  # as long as it lives nothing else can call anyio.run
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        with tempfile.TemporaryDirectory() as home:
            browser = await playwright.chromium.launch(
                executable_path=CHROMIUM, args=FLAGS, env={**os.environ, "HOME": home}
            )
            yield browser
            await browser.close()


@pytest.fixture
async def started(tmp_path: Path) -> AsyncIterator[Callable[..., Awaitable[Serving]]]:
    """Starts services: `await started(script, api_key=…)`."""
    async with AsyncExitStack() as stack:

        async def start(script: Script = DEMO, **settings: Any) -> Serving:
            return await stack.enter_async_context(serving(tmp_path, ScriptedBackend(script), **settings))

        yield start


@pytest.fixture
async def visit(browser: Browser) -> AsyncIterator[Open]:
    """Opens pages: `await visit(url, width=390)`. Any console error or exception in one fails the test."""
    problems: list[str] = []
    async with AsyncExitStack() as stack:

        async def open_page(url: str, *, width: int = 1180, height: int = 800, scheme: str = "light") -> Page:
            context = await browser.new_context(
                viewport={"width": width, "height": height},
                color_scheme=scheme,  # type: ignore[arg-type]
            )
            stack.push_async_callback(context.close)
            page = await context.new_page()
            page.set_default_timeout(30_000)
            page.on("pageerror", lambda error: problems.append(str(error)))
            page.on(
                "console",
                lambda message: (
                    problems.append(message.text)
                    # The browser itself reports every answer with an error status there.
                    if message.type == "error" and "Failed to load resource" not in message.text
                    else None
                ),
            )
            await page.goto(url)
            return page

        yield open_page
    assert problems == []
