"""The page in a real browser: chat, steps, stop, past runs, keys, a phone, and nothing loaded from elsewhere."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from playwright.async_api import expect

from service.backends.scripts import Call, Rule, Script, Turn
from tests.fakes.server import Serving

pytestmark = [pytest.mark.anyio, pytest.mark.in_image, pytest.mark.long]

Started = Callable[..., Awaitable[Serving]]
Visit = Callable[..., Awaitable[Any]]

SLOW = Script((Rule("slow", (Turn(text="word " * 400, pace=0.05),)), Rule("", (Turn(text="quick answer"),))))


async def send(page: Any, text: str) -> None:
    await page.fill("#input", text)
    await page.keyboard.press("Enter")


class TestChat:
    async def test_a_run_with_a_tool_shows_its_steps_and_cost(self, started: Started, visit: Visit) -> None:
        """Two steps, the tool with arguments and result, the answer, tokens, time and cost."""
        service = await started(price_prompt=1.0, price_completion=2.0)
        page = await visit(service.url)
        await send(page, "what is 12 * 7?")
        turn = page.locator(".turn")
        await expect(turn.locator(".answer")).to_have_text("12 * 7 is 84.")
        await expect(turn.locator(".step")).to_have_count(2)
        await expect(turn.locator(".step .meta").first).to_contain_text("out")
        tool = turn.locator(".tool")
        await expect(tool).to_have_attribute("data-state", "ok")
        await tool.locator("summary").click()
        await expect(tool.locator("pre").first).to_contain_text('"expression": "12 * 7"')
        await expect(tool.locator("pre").last).to_have_text("84")
        await expect(turn.locator(".cost")).to_contain_text(re.compile(r"tokens \d+ in, \d+ out.*time.*cost 0\.0000"))
        await expect(turn.locator(".run")).to_have_attribute("aria-busy", "false")
        await expect(page.locator("#say")).to_have_text("12 * 7 is 84.")

    async def test_words_arrive_while_the_model_speaks(self, started: Started, visit: Visit) -> None:
        """The answer grows; the run is marked busy until its end."""
        service = await started(SLOW)
        page = await visit(service.url)
        await send(page, "slow please")
        answer = page.locator(".answer")
        await expect(answer).to_contain_text("word word")
        before = len(await answer.inner_text())
        await page.wait_for_function("n => document.querySelector('.answer').innerText.length > n", arg=before)
        await expect(page.locator(".run")).to_have_attribute("aria-busy", "true")

    async def test_escape_stops_the_run(self, started: Started, visit: Visit) -> None:
        """The run ends as cancelled on the server, what was written stays, and one can go on."""
        service = await started(SLOW)
        page = await visit(service.url)
        await send(page, "slow please")
        await expect(page.locator(".answer")).to_contain_text("word")
        await page.keyboard.press("Escape")
        await expect(page.locator(".notice")).to_contain_text("Stopped")
        await expect(page.locator(".answer")).to_contain_text("word")
        runs = (await service.client.get("/v1/runs")).json()["data"]
        assert [run["outcome"] for run in runs] == ["cancelled"]
        await send(page, "go on")
        await expect(page.locator(".turn").nth(1).locator(".answer")).to_have_text("quick answer")

    async def test_a_failing_model_says_what_happened(self, started: Started, visit: Visit) -> None:
        """The error in words, what came before it, and a way to try again."""
        script = Script.of(Turn(text="I begin", fail="failed", fail_after=2, fail_times=1))
        service = await started(script)
        page = await visit(service.url)
        await send(page, "go")
        notice = page.locator(".notice.bad")
        await expect(notice).to_contain_text("The model failed")
        await expect(page.locator(".answer")).to_have_text("I begin")
        await notice.get_by_role("button", name="Try again").click()
        await expect(page.locator(".turn").nth(1).locator(".answer")).to_have_text("I begin")
        await expect(page.locator(".notice")).to_have_count(1)

    async def test_a_failed_tool_is_marked(self, started: Started, visit: Visit) -> None:
        """The model's mistake and the tool's words are there to read."""
        script = Script.of(Turn(calls=(Call("calculator", {"expression": "1/0"}),)), Turn(text="Impossible."))
        service = await started(script)
        page = await visit(service.url)
        await send(page, "go")
        await expect(page.locator(".tool")).to_have_attribute("data-state", "failed")
        await expect(page.locator(".tool pre").last).to_contain_text("Division by zero")

    async def test_output_is_text_whatever_it_holds(self, started: Started, visit: Visit) -> None:
        """Markup in an answer, a result or a question is shown, not obeyed; code and lists are set as such."""
        evil = '<img src=x onerror="document.title=1"><script>document.title=1</script>'
        answer = f"{evil}\n\n- one **bold**\n- two `code`\n\n```py\nprint('<b>')\n```"
        service = await started(Script.of(Turn(text=answer.replace("$", "$$"))))
        page = await visit(service.url)
        await send(page, evil)
        body = page.locator(".answer")
        await expect(body.locator("li")).to_have_count(2)
        await expect(body.locator("strong")).to_have_text("bold")
        await expect(body.locator(".code code")).to_have_text("print('<b>')")
        assert evil in await body.inner_text()
        assert await page.locator(".turn img, .turn script").count() == 0
        assert await page.title() != "1"

    async def test_tables_emphasis_and_links(self, started: Started, visit: Visit) -> None:
        """They are set as such; a link says where it goes, opens apart, and only ordinary addresses become one."""
        table = "| a | b |\n| --- | --- |\n| 1 | *two* |\n\n"
        text = table + "5 * 3 * 2 [docs](https://example.com/x) [bad](javascript:alert(1))"
        service = await started(Script.of(Turn(text=text)))
        page = await visit(service.url)
        await send(page, "go")
        await expect(page.locator(".answer th")).to_have_count(2)
        await expect(page.locator(".answer td em")).to_have_text("two")
        await expect(page.locator(".answer em")).to_have_count(1)
        link = page.locator(".answer a")
        await expect(link).to_have_count(1)
        await expect(link).to_have_attribute("href", "https://example.com/x")
        await expect(link).to_have_attribute("rel", "noopener noreferrer nofollow")

    async def test_an_answer_can_be_judged(self, started: Started, visit: Visit) -> None:
        """A thumb is stored with the run, shown as pressed, and still there after a reload."""
        service = await started()
        page = await visit(service.url)
        await send(page, "hello")
        await page.get_by_role("button", name="Bad answer").click()
        await expect(page.get_by_role("button", name="Bad answer")).to_have_attribute("aria-pressed", "true")
        [run] = (await service.client.get("/v1/runs")).json()["data"]
        assert run["feedback"]["thumbs"] == "down"
        await page.reload()
        await expect(page.get_by_role("button", name="Bad answer")).to_have_attribute("aria-pressed", "true")
        await expect(page.get_by_role("button", name="Good answer")).to_have_attribute("aria-pressed", "false")


class TestPast:
    async def test_past_conversations_open_again(self, started: Started, visit: Visit) -> None:
        """After a reload the conversation is there; a new one begins empty; the list leads back."""
        service = await started()
        page = await visit(service.url)
        await send(page, "what is 2 + 2?")
        await expect(page.locator(".answer")).to_have_text("2 + 2 is 4.")
        await send(page, "hello")
        await expect(page.locator(".turn").nth(1).locator(".answer")).to_contain_text("hello")
        await page.reload()
        await expect(page.locator(".turn")).to_have_count(2)
        await expect(page.locator(".turn").first.locator(".tool")).to_have_count(1)
        await expect(page.locator("#title")).to_have_text("what is 2 + 2?")
        await page.keyboard.press("Alt+n")
        await expect(page.locator(".turn")).to_have_count(0)
        await expect(page.locator("#empty")).to_be_visible()
        await page.locator("button.past").click()
        await expect(page.locator(".turn")).to_have_count(2)

    async def test_a_closed_tab_does_not_lose_the_run(self, started: Started, visit: Visit) -> None:
        """The run goes on; whoever comes back reads it from the beginning to its end."""
        service = await started(Script.of(Turn(text="word " * 60 + "end", pace=0.05)))
        page = await visit(service.url)
        await send(page, "go")
        await expect(page.locator(".answer")).to_contain_text("word")
        address = page.url
        await page.close()
        again = await visit(address)
        await expect(again.locator(".answer")).to_contain_text("end")
        text = await again.locator(".answer").inner_text()
        assert text.split() == ["word"] * 60 + ["end"]


class TestKey:
    async def test_it_asks_for_the_key_and_uses_it(self, started: Started, visit: Visit) -> None:
        """Without a key a dialog asks; a wrong one is refused; the right one is kept for the tab and sent."""
        service = await started(api_key="al-test-key-0123456789")
        page = await visit(service.url)
        dialog = page.locator("dialog#ask")
        await expect(dialog).to_be_visible()
        await page.fill("#ask-key", "wrong")
        await page.get_by_role("button", name="Use this key").click()
        await expect(dialog).to_be_visible()
        await page.fill("#ask-key", "al-test-key-0123456789")
        await page.get_by_role("button", name="Use this key").click()
        await expect(dialog).to_be_hidden()
        await expect(page.locator("#model option").first).to_be_attached()
        await send(page, "hi")
        await expect(page.locator(".answer")).to_contain_text("hi")
        assert await page.evaluate("localStorage.length") == 0


class TestDevices:
    @pytest.mark.parametrize("scheme", ["light", "dark"])
    async def test_a_phone_has_everything(self, started: Started, visit: Visit, scheme: str) -> None:
        """Nothing overflows, past conversations are in a drawer, text has contrast in both schemes."""
        service = await started()
        page = await visit(service.url, width=360, height=700, scheme=scheme)
        await send(page, "what is 123456789 * 987654321 + 123456789 * 987654321?")
        await expect(page.locator(".cost span").first).to_be_visible()
        assert await page.evaluate("document.documentElement.scrollWidth") <= 360
        assert await page.evaluate("document.getElementById('scroll').scrollWidth") <= 360
        await expect(page.locator("#side")).not_to_be_in_viewport()
        await page.click("#menu")
        await expect(page.locator("button.past").first).to_be_in_viewport()
        await page.keyboard.press("Escape")
        await expect(page.locator("#side")).not_to_be_in_viewport()
        for selector in (".answer", ".cost", ".question p", "#title", ".step .meta"):
            assert await page.evaluate(CONTRAST, selector) >= 4.5, selector

    async def test_the_keyboard_is_enough(self, started: Started, visit: Visit) -> None:
        """Tabbing back from the message box reaches the link that skips to it; every control has a name."""
        service = await started()
        page = await visit(service.url)
        passed: list[str] = []
        while not passed or passed[-1] != "Skip to the message box":
            await page.keyboard.press("Shift+Tab")
            passed.append(await page.evaluate("document.activeElement.textContent.trim()"))
            assert len(passed) < 30
        assert any(each.startswith("New conversation") for each in passed)
        await page.keyboard.press("Enter")
        await page.keyboard.type("hello")
        await page.keyboard.press("Shift+Enter")
        await page.keyboard.type("there")
        await page.keyboard.press("Enter")
        await expect(page.locator(".question p")).to_have_text("hello\nthere")
        await expect(page.locator("button.past")).to_have_count(1)  # the run has ended and is listed
        names = await page.evaluate(
            "[...document.querySelectorAll('button,select,textarea,input')].filter(e => e.offsetParent)"
            ".map(e => e.ariaLabel || e.innerText || e.labels?.[0]?.innerText || '')"
        )
        # A new conversation, a past one, the key, the model, the message and sending it.
        assert len(names) >= 6
        assert all(name.strip() for name in names)


CONTRAST = """selector => {
  const canvas = new OffscreenCanvas(1, 1).getContext('2d', {willReadFrequently: true});
  const rgb = colour => { canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3); };
  const light = colour => { const [r, g, b] = rgb(colour).map(v => v / 255)
      .map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const element = document.querySelector(selector);
  let behind = element;
  while (behind && /rgba\\(0, 0, 0, 0\\)|transparent/.test(getComputedStyle(behind).backgroundColor))
    behind = behind.parentElement;
  const [a, b] = [light(getComputedStyle(element).color), light(getComputedStyle(behind).backgroundColor)].sort();
  return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
}"""
