"""The page: served to everybody, talking to nobody else, and used in a real browser where there is one."""

import asyncio
import re
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import pytest
from support.lived_engine import make_engine
from support.realtime_clients import KEY, serving
from support.serving import picture, run_clean, server_settings
from support.sockets import streaming
from support.tiny_models import tiny_weights

from inf_stream.base.config import AnswerSettings, CacheSettings, ModelSettings
from inf_stream.base.events import Frame
from inf_stream.server.running import RunningServer, running_server
from inf_stream.server.sessions.engines import SharedModel, UsageEngine
from inf_stream.server.web import files
from inf_stream.server.web.access import Access

S = 1_000_000_000
PAGE = Path(files.__file__).parent / "page"
CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), ""
)


async def fetched(server: RunningServer, path: str, **more: Any) -> tuple[int, str, dict[str, str]]:
    async with aiohttp.ClientSession() as client, client.get(f"{server.address}{path}", **more) as response:
        return response.status, await response.text(), dict(response.headers)


def test_the_page_and_all_it_names_are_served_without_a_key() -> None:
    async def main() -> None:
        async with serving(keys=(KEY,)) as server:
            status, text, headers = await fetched(server, "/")
            assert status == 200
            assert headers["Content-Type"].startswith("text/html")
            assert "script-src 'self'" in headers["Content-Security-Policy"]
            assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
            named = set(re.findall(r'(?:src|href)="(/[^"]+)"', text))
            assert named == {"/page/page.css", "/page/page.js"}
            for script in PAGE.glob("*.js"):
                named |= {f"/page/{name}" for name in re.findall(r'from "\./([^"]+)"', script.read_text())}
            assert named == {f"/page/{file.name}" for file in PAGE.iterdir() if file.name != "index.html"}
            for path in named:
                status, text, headers = await fetched(server, path)
                assert (status, bool(text)) == (200, True)
                assert headers["X-Content-Type-Options"] == "nosniff"
            assert (await fetched(server, "/v1/models"))[0] == 401, "the rest still asks for one"

    run_clean(main())


@pytest.mark.parametrize(
    "path", ["/page/none.js", "/page/", "/page/..%2fweb.py", "/page/%2e%2e/web.py", "/page/x/page.js"]
)
def test_nothing_else_is_there(path: str) -> None:
    async def main() -> None:
        async with serving() as server:
            status, text, _ = await fetched(server, path)
            assert status == 404
            assert "import" not in text

    run_clean(main())


@pytest.mark.parametrize("file", sorted(PAGE.iterdir()), ids=lambda file: file.name)
def test_it_needs_no_other_host(file: Path) -> None:
    assert re.findall(r"(?:https?:)?//[a-z0-9-]+\.[a-z]", file.read_text(encoding="utf-8")) == []


def shared_model() -> SharedModel:
    settings = server_settings()
    return SharedModel(
        type(settings)(
            model=ModelSettings(name="tiny"),
            cache=CacheSettings(budget_tokens=128, chunk_tokens=64),
            answer=AnswerSettings(max_tokens=8),
            source=settings.source,
            server=settings.server,
        ),
        tiny_weights("smolvlm"),
    )


def test_memory_says_which_seconds_are_kept() -> None:
    now_s = 0.0
    engine = UsageEngine(make_engine("smolvlm"), lambda: now_s)
    assert engine.memory is None
    for number in range(20):
        pixels = np.random.default_rng(number).integers(0, 256, (30, 40, 3), dtype=np.uint8)
        engine.ingest_frames([Frame(pixels, number * S, number)])
        now_s += 0.4
    memory = engine.memory
    assert memory is not None
    assert (memory["from_s"], memory["width_s"]) == (0.0, 1.0)
    kept = memory["kept"]
    assert isinstance(kept, list)
    assert 18 <= len(kept) <= 20, "the last look is a second old at most"
    assert sum(kept) == pytest.approx(memory["tokens_kept"], abs=0.2)
    assert kept[-1] > 0, "the newest frame is always kept"
    assert 128 < memory["tokens_kept"] <= memory["most_tokens"] == engine._cache.capacity_tokens


def test_the_client_gets_it_with_the_statistics() -> None:
    async def main() -> None:
        model = shared_model()
        async with running_server(model, model._settings, Access(())) as server, streaming(server) as client:
            await client.say("stats")
            assert (await client.until("stats"))["memory"] is None
            for number in range(3):
                await client.frame(picture(width=32, height=32, grey=40 * number))
            await client.outcomes(3)
            await client.say("stats")
            memory = (await client.until("stats"))["memory"]
            assert memory["kept"]
            assert 0 < memory["tokens_kept"] <= 400

    run_clean(main())


# ---- in a browser --------------------------------------------------------------------------------


@asynccontextmanager
async def browsing(server: RunningServer, *expected: str, width: int = 1280) -> AsyncIterator[Any]:
    """A page of headless Chromium with a fake camera; errors on it fail the test, but those with expected words."""
    playwright = pytest.importorskip("playwright.async_api")
    arguments = ["--no-sandbox", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
    problems: list[str] = []
    async with playwright.async_playwright() as driver:
        browser = await driver.chromium.launch(executable_path=CHROMIUM, args=arguments)
        context = await browser.new_context(viewport={"width": width, "height": 800}, permissions=["camera"])
        page = await context.new_page()
        page.set_default_timeout(30_000)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
        await page.goto(server.address)
        try:
            yield page
        finally:
            await browser.close()
    assert [p for p in problems if not any(words in p for words in expected)] == []


needs_browser = pytest.mark.skipif(not CHROMIUM, reason="no Chromium on this machine")


@needs_browser
def test_from_page_load_to_an_answer_with_the_camera() -> None:
    async def main() -> None:
        model = shared_model()
        async with running_server(model, model._settings, Access(())) as server, browsing(server) as page:
            await page.get_by_text("connected", exact=True).wait_for()
            await page.get_by_role("button", name="Camera").click()
            await page.locator("#figure-frames", has_text=re.compile(r"^([3-9]|\d{2,}) ")).wait_for()
            await page.keyboard.press("/")
            await page.keyboard.type("What do you see?")
            await page.keyboard.press("Enter")
            answer = page.locator("#log .answer").first
            await answer.locator(".rests button").first.wait_for()
            assert (await page.locator("#log .question").inner_text()) == "What do you see?"
            assert await page.locator("#figure-first").inner_text() != "–"
            assert await page.locator("#figure-cache").inner_text() != "–"
            assert "is still kept" in await page.locator("#memory-text").inner_text()
            lit = await page.evaluate(
                "(() => { const c = document.getElementById('strip'); const d = c.getContext('2d')"
                ".getImageData(0, c.height >> 1, c.width, 1).data; let n = 0;"
                "for (let i = 0; i < d.length; i += 4) if (d[i] > 100) n++; return n; })()"
            )
            assert lit > 10, "the strip shows what is kept"
            await answer.locator(".rests button").first.click()
            await page.locator("#past").wait_for(state="visible")
            assert "What was seen at" in (await page.locator("#past").get_attribute("alt") or "")
            await page.get_by_role("button", name="Stop").click()

    run_clean(main(), 120)


@needs_browser
def test_watches_keys_and_a_phone() -> None:
    async def main() -> None:
        model = shared_model()
        async with (
            running_server(model, model._settings, Access((KEY,))) as server,
            browsing(server, "HTTP Authentication failed", width=390) as page,
        ):
            fits = "document.documentElement.scrollWidth <= window.innerWidth"
            assert await page.evaluate(fits)
            await page.locator("#log p.problem", has_text="the server may ask for an API key").wait_for()
            await page.get_by_label("API key", exact=True).fill(KEY)
            await page.get_by_role("button", name="Use").click()
            await page.get_by_text("connected", exact=True).wait_for()
            await page.locator("summary", has_text="Tell me when").click()
            await page.get_by_label("Question that is asked again and again").fill("Is there a dog?")
            await page.get_by_role("button", name="Watch").click()
            remove = page.get_by_role("button", name="Stop watching: Is there a dog?")
            await remove.wait_for()
            assert await page.evaluate(fits)
            await remove.click()
            await remove.wait_for(state="detached")

    run_clean(main(), 120)


@needs_browser
def test_a_lost_connection_comes_back_with_the_session() -> None:
    async def main() -> None:
        model = shared_model()
        async with running_server(model, model._settings, Access(())) as server, browsing(server) as page:
            await page.get_by_text("connected", exact=True).wait_for()
            (channel,) = list(server.channels)
            assert channel._connection is not None
            channel._connection.cut(1011, "a cable was pulled")
            await page.locator("#status", has_text="again").wait_for()
            await page.get_by_text("connected", exact=True).wait_for()
            assert [c.handle for c in server.channels] == [channel.handle]
            await page.reload()
            await page.get_by_text("connected", exact=True).wait_for()
            while len(list(server.channels)) > 1:
                await asyncio.sleep(0.01)
            assert [c.handle for c in server.channels] != [channel.handle], "a page that was left keeps no session"

    run_clean(main(), 120)
