"""What the page says of its connection, and what it does when that is lost, refused or ended."""

import asyncio
import json
import re
from typing import Any

from support.browsing import ELSEWHERE, PlayedServer, ask, browsing, memory, needs_browser, status
from support.realtime_clients import KEY, serving
from support.serving import ListMaker, run_clean, server_settings

from inf_stream.server.running import RunningServer, running_server
from inf_stream.server.web.access import Access

pytestmark = needs_browser
REFUSED, LOST = "Failed to load resource", "WebSocket connection to"


def cut(server: RunningServer) -> None:
    (channel,) = server.channels
    assert channel._connection is not None
    channel._connection.cut(1011, "a cable was pulled")


def test_it_says_what_is_going_on() -> None:
    async def main() -> None:
        maker = ListMaker()
        async with serving(maker) as server, browsing(server) as page:
            await status(page, "Waiting for a source")
            await page.get_by_role("button", name="Camera").click()
            await status(page, "Streaming the camera")
            maker.gate.clear()
            await ask(page, "first")
            await status(page, "Answering")
            await ask(page, "second")
            await status(page, "Answering, 1 waiting")
            maker.gate.set()
            await status(page, "Streaming the camera")
            await page.get_by_role("button", name="Stop").click()
            await status(page, "Waiting for a source")
            cut(server)
            await status(page, "The connection was lost.")
            countdown = page.locator("#countdown")
            assert re.fullmatch(r"Trying again in \d+ s", await countdown.inner_text())
            assert await countdown.get_attribute("aria-hidden") == "true", "a screen reader does not count along"
            await status(page, "Waiting for a source")
            assert await countdown.inner_text() == ""

    run_clean(main(), 120)


def test_a_lost_connection_comes_back_with_the_session() -> None:
    async def main() -> None:
        async with serving() as server, browsing(server) as page:
            await status(page, "Waiting for a source")
            (channel,) = server.channels
            cut(server)
            await status(page, "The connection was lost.")
            await page.get_by_role("button", name="Try now").click()
            await status(page, "Waiting for a source")
            assert [c.handle for c in server.channels] == [channel.handle]
            await page.reload()
            await status(page, "Waiting for a source")
            while len(server.channels) > 1:
                await asyncio.sleep(0.01)
            assert [c.handle for c in server.channels] != [channel.handle], "a page that was left keeps no session"

    run_clean(main(), 120)


def test_what_was_lost_with_a_connection_holds_nothing_up() -> None:
    async def main() -> None:
        played = PlayedServer(memory(5))
        async with serving() as server, browsing(server, played=played) as page:
            await status(page, "Waiting for a source")
            played.settles = False
            await page.locator("#fps").select_option("5")
            await page.get_by_role("button", name="Camera").click()
            await page.locator("#figure-dropped", has_text="model busy").wait_for()
            await ask(page, "Is anybody there?")
            await status(page, "Answering")
            await played.close(1011, "a cable was pulled")
            played.settles = True
            await page.locator(".failure", has_text="it was lost with the connection").wait_for()
            await status(page, "Streaming the camera")
            await page.locator("#figure-frames", has_text=re.compile(r" ([3-9]|\d{2,}) in all")).wait_for()

    run_clean(main(), 120)


def test_a_stopped_server_is_waited_for_and_begun_anew_with() -> None:
    async def main() -> None:
        settings = server_settings(drain_s=0.0)
        async with running_server(ListMaker(), settings, Access(())) as first:
            visit = browsing(first, REFUSED, LOST)
            page = await visit.__aenter__()
            await page.get_by_role("button", name="Camera").click()
            await status(page, "Streaming the camera")
            await ask(page, "Anything?")
            await page.locator("#log .rests").wait_for()
        await status(page, "The server has stopped.")
        said = "(() => { window.said = []; new MutationObserver(() => said.push(document.getElementById('status')"
        said += ".textContent)).observe(document.getElementById('status'), {childList: true, characterData: true}) })()"
        await page.evaluate(said)
        await page.wait_for_event("websocket")
        await page.locator("#countdown", has_text="Trying again in").wait_for()
        assert await page.evaluate("said") == [], "it tries on quietly"
        settings = server_settings(port=first.port)
        async with running_server(ListMaker(), settings, Access(())):
            await page.get_by_role("button", name="Try now").click()
            await status(page, "Streaming the camera")
            dividers = await page.locator(".divider").all_inner_texts()
            assert dividers[1:] == ["New session: nothing of the above is remembered", "The camera, from 00:00"]
            await visit.__aexit__(None, None, None)

    run_clean(main(), 120)


def test_a_wrong_key_is_not_a_missing_one() -> None:
    async def main() -> None:
        async with serving(keys=(KEY,)) as server, browsing(server, REFUSED, LOST) as page:
            problem = page.locator("#key-problem")
            key = page.get_by_label("API key")
            await status(page, "The server asks for an API key")
            assert await problem.inner_text() == "The server asks for an API key."
            assert await key.get_attribute("aria-invalid") == "false"
            for wrong in ("another-key-of-many-characters", "a key that no browser can send"):
                await key.fill(wrong)
                await page.keyboard.press("Enter")
                await status(page, "The server does not know this API key")
                assert await problem.inner_text() == "The server does not know this API key."
                assert await key.get_attribute("aria-invalid") == "true"
                assert await key.evaluate("key => key === document.activeElement")
            await key.fill(KEY)
            await page.get_by_role("button", name="Connect").click()
            await status(page, "Waiting for a source")
            assert not await problem.is_visible()

    run_clean(main(), 120)


def test_a_page_of_a_strange_name_learns_what_to_do() -> None:
    async def main() -> None:
        async with serving() as server, browsing(server, REFUSED, LOST, host=ELSEWHERE) as page:
            await status(page, "The server refuses this page")
            assert "name the origin in --origins" in await page.locator("#status").inner_text()

    run_clean(main(), 120)


def test_a_full_server_is_waited_for() -> None:
    async def main() -> None:
        async with serving(sessions=1) as server, browsing(server) as first:
            await status(first, "Waiting for a source")
            async with browsing(server) as second:
                await status(second, "1 sessions are open, the most allowed.")
                await first.goto("about:blank")
                await second.get_by_role("button", name="Try now").click()
                await status(second, "Waiting for a source")

    run_clean(main(), 120)


def test_an_idle_session_ends_and_the_next_source_begins_another() -> None:
    async def main() -> None:
        async with serving(idle_timeout_s=2.0) as server, browsing(server) as page:
            await status(page, "The session has ended: nothing came for 2 s")
            await ask(page, "Anybody?")
            await page.locator("#log .problem", has_text="Not asked").wait_for()
            assert await page.locator("#question").input_value() == "Anybody?", "what was typed is kept"
            await page.get_by_role("button", name="Camera").click()
            await status(page, "Streaming the camera")
            await page.get_by_text("nothing of the above is remembered").wait_for()

    run_clean(main(), 120)


def test_the_page_and_the_server_agree_about_time() -> None:
    sent: list[dict[str, Any]] = []
    heard: list[dict[str, Any]] = []

    async def main() -> None:
        async with serving() as server, browsing(server) as page:
            note_frames(page, sent, heard)
            await page.reload()
            await status(page, "Waiting for a source")
            await ask(page, "What is there before anything is?")
            await page.locator("#log .rests").wait_for()
            await page.wait_for_timeout(3000)
            await page.get_by_role("button", name="Camera").click()
            while len(heard) < 2:
                await page.wait_for_timeout(50)
            await page.get_by_role("button", name="Stop").click()
            await page.get_by_role("button", name="Camera").click()
            while len(heard) < 5:
                await page.wait_for_timeout(50)
        stamps = [frame["timestamp_ms"] / 1000 for frame in sent][: len(heard)]
        settled = [frame["at_s"] for frame in heard]
        assert stamps[0] >= 3, "the stream began with the question"
        assert all(abs(ours - theirs) < 1.5 for ours, theirs in zip(stamps, settled, strict=True)), (stamps, settled)

    run_clean(main(), 120)


def note_frames(page: Any, sent: list[dict[str, Any]], heard: list[dict[str, Any]]) -> None:
    """Collect what is said of frames in both directions."""

    def note(into: list[dict[str, Any]], message: str | bytes) -> None:
        if isinstance(message, str) and json.loads(message)["type"] == "frame":
            into.append(json.loads(message))

    def opened(socket: Any) -> None:
        socket.on("framesent", lambda message: note(sent, message))
        socket.on("framereceived", lambda message: note(heard, message))

    page.on("websocket", opened)
