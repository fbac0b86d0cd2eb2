"""The page used as people use it: sources, questions, watches, and the strip of the memory."""

import re
from pathlib import Path
from typing import Any

from support.browsing import PlayedServer, ask, browsing, memory, needs_browser, shared_model, status, until
from support.media import picture, write_clip
from support.realtime_clients import serving
from support.serving import ListMaker, run_clean

from inf_stream.server.running import running_server
from inf_stream.server.web.access import Access

pytestmark = needs_browser
BROKEN = {"name": "broken.mp4", "mimeType": "video/mp4", "buffer": b"no video at all"}
LIT = """(() => {
  const strip = document.getElementById("strip");
  const { data } = strip.getContext("2d").getImageData(0, strip.height >> 1, strip.width, 1);
  return data.filter((value, n) => n % 4 === 0 && value > 100).length / strip.width;
})()"""


async def now_on_strip(page: Any) -> str:
    return str(await page.locator("#strip").get_attribute("aria-valuetext"))


def test_from_page_load_to_an_answer_with_the_camera() -> None:
    async def main() -> None:
        model = shared_model()
        async with running_server(model, model._settings, Access(())) as server, browsing(server) as page:
            await status(page, "Waiting for a source")
            await page.get_by_role("button", name="Camera").click()
            await page.locator("#figure-frames", has_text=re.compile(r" ([3-9]|\d{2,}) in all")).wait_for()
            await ask(page, "What do you see?")
            answer = page.locator("#log .answer").first
            await answer.locator(".rests button").first.wait_for()
            assert await page.locator("#log .question").inner_text() == "What do you see?"
            assert re.fullmatch(r"[\d.]+ s ?", await page.locator("#figure-first").inner_text())
            assert re.fullmatch(r"\d+ of \d+", await page.locator("#figure-cache").inner_text())
            assert re.fullmatch(
                r"something of (\d+ % of the seconds|every second) is kept", await page.inner_text("#memory-text")
            )
            assert await page.evaluate(LIT) > 0.2, "the strip shows what is kept"
            await answer.locator(".rests button").first.click()
            await page.locator("#past").wait_for(state="visible")
            assert "What was seen at" in (await page.locator("#past").get_attribute("alt") or "")
            await page.get_by_role("button", name="Back to now").click()
            await page.locator("#past").wait_for(state="hidden")
            await page.get_by_role("button", name="Stop").click()
            await status(page, "Waiting for a source")

    run_clean(main(), 120)


def test_the_strip_is_walked_from_now_and_left_with_escape() -> None:
    async def main() -> None:
        played = PlayedServer(memory(25))
        async with serving() as server, browsing(server, played=played) as page:
            strip = page.locator("#strip")
            assert await now_on_strip(page) == "nothing yet"
            await strip.focus()
            await page.keyboard.press("ArrowLeft")
            assert await now_on_strip(page) == "nothing yet", "there is nowhere to go"
            await page.get_by_role("button", name="Camera").click()
            await page.locator("#axis-to", has_text="now 00:25").wait_for()
            assert await now_on_strip(page) == "now, 00:25"
            await strip.focus()
            for key, place in (
                ("ArrowLeft", "00:24, 20 tokens kept"),
                ("ArrowLeft", "00:23, 20 tokens kept"),
                ("ArrowLeft", "00:22, forgotten"),
                ("PageDown", "00:12, 20 tokens kept"),
                ("Home", "00:00, 20 tokens kept"),
                ("ArrowLeft", "00:00, 20 tokens kept"),
                ("ArrowRight", "00:01, forgotten"),
                ("End", "now, 00:25"),
            ):
                await page.keyboard.press(key)
                assert await now_on_strip(page) == place, key
                assert await page.locator("#live").is_visible() == (key != "End")
            await page.keyboard.press("ArrowLeft")
            await page.locator("#when", has_text="00:24 · 20 tokens kept").wait_for()
            await page.keyboard.press("Escape")
            assert await now_on_strip(page) == "now, 00:25"
            assert not await page.locator("#live").is_visible()
            box = await strip.bounding_box()
            await page.mouse.click(box["x"] + box["width"] * 4.5 / 25, box["y"] + 5)
            assert await now_on_strip(page) == "00:04, forgotten"
            values = [await strip.get_attribute(f"aria-value{name}") for name in ("min", "now", "max")]
            assert values == ["0", "4", "25"]

    run_clean(main(), 120)


def test_hours_of_stream_on_a_narrow_strip() -> None:
    async def main() -> None:
        hours = memory(239, 42.0)
        hours["kept"] = [9.0 if bar == 119 else 0.0 for bar in range(239)]
        played = PlayedServer(hours)
        async with serving() as server, browsing(server, played=played, size=(200, 640)) as page:
            await page.get_by_role("button", name="Camera").click()
            await page.locator("#axis-to", has_text="now 2:47:18").wait_for()
            assert await page.locator("#strip").evaluate("strip => strip.clientWidth") < 239
            assert 0 < await page.evaluate(LIT) < 0.03, "the one bar that is kept is seen"
            await page.locator("#strip").focus()
            await page.keyboard.press("PageDown")
            assert await now_on_strip(page) == "2:40:18, forgotten"
            await page.locator("#when", has_text="2:40:18 · forgotten · picture of").wait_for()
            await page.locator("#past").wait_for()

    run_clean(main(), 120)


def test_pictures_are_kept_of_the_whole_stream_and_not_without_bound() -> None:
    script = """async () => {
      const { Pictures } = await import("/page/pictures.js");
      const pictures = new Pictures();
      for (let second = 0; second < 3000; second++) pictures.add(new Blob(["x"]), second);
      const found = new Set();
      let farthest = 0;
      for (let second = 0; second < 3000; second++) {
        const picture = pictures.nearest(second);
        found.add(picture.address);
        farthest = Math.max(farthest, Math.abs(picture.second - second));
      }
      const isNewest = pictures.nearest(2999).second === 2999;
      pictures.clear();
      return [found.size, farthest, isNewest, pictures.nearest(5)];
    }"""

    async def main() -> None:
        async with serving() as server, browsing(server) as page:
            kept, farthest_s, is_newest_there, none = await page.evaluate(script)
            assert kept <= 600
            assert farthest_s <= 8
            assert is_newest_there
            assert none is None

    run_clean(main(), 120)


def test_an_unplayable_file_ends_nothing_and_a_playable_one_follows(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", [picture(n) for n in range(30)])

    async def main() -> None:
        async with serving() as server, browsing(server) as page:
            await page.get_by_role("button", name="Camera").click()
            await status(page, "Streaming the camera")
            await page.locator("#chosen").set_input_files(BROKEN)
            problem = page.locator("#log .problem", has_text="broken.mp4 cannot be played here; choose an MP4")
            await problem.wait_for()
            await status(page, "Streaming the camera")
            assert await page.evaluate("video.srcObject.getVideoTracks()[0].readyState") == "live"
            before = len(await page.locator(".divider").all())
            assert before == 1, "nothing new is watched"
            await page.locator("#chosen").set_input_files(clip)
            await status(page, "Streaming clip.mp4")
            assert await page.locator("#file").get_attribute("aria-pressed") == "true"
            dividers = await page.locator(".divider").all_inner_texts()
            assert dividers[0] == "The camera, from 00:00"
            assert re.fullmatch(r"clip\.mp4, from 00:\d\d", dividers[1])
            await status(page, "clip.mp4 has ended")

    run_clean(main(), 120)


def test_another_camera_can_be_chosen() -> None:
    async def main() -> None:
        async with serving() as server, browsing(server) as page:
            await page.get_by_role("button", name="Camera").click()
            cameras = page.get_by_label("Which camera")
            await cameras.wait_for()
            playing = "video.srcObject?.getVideoTracks()[0].getSettings().deviceId"
            first = await page.evaluate(playing)
            ids = await cameras.locator("option").evaluate_all("options => options.map(option => option.value)")
            (other,) = set(ids) - {first}
            await cameras.select_option(other)
            await until(page, f"({playing}) === '{other}'")
            assert len(await page.locator(".divider").all()) == 2

    run_clean(main(), 120)


def test_watches_are_set_once_and_told_of() -> None:
    async def main() -> None:
        played = PlayedServer(memory(5))
        async with serving() as server, browsing(server, played=played) as page:
            await status(page, "Waiting for a source")
            watch, box = page.get_by_role("button", name="Tell me when"), page.locator("#question")
            log = page.locator("#log")
            await watch.click()
            await log.get_by_text("Type what to watch for first").wait_for()
            await box.fill("Is there a dog?")
            await watch.click()
            await log.get_by_text("Watching for “Is there a dog?”").wait_for()
            await box.fill("is there  a DOG")
            await watch.click()
            await log.get_by_text("This watch is set already.").wait_for()
            played.replies["watch"] = lambda _asked: [{"type": "error", "message": "not this one", "param": "watch.id"}]
            await box.fill("Is there a cat?")
            await watch.click()
            await log.get_by_text("not this one").wait_for()
            assert await page.locator("#watches li").count() == 1, "what was refused is not set"
            played.replies["watch"] = lambda asked: [{**asked, "type": "watching"}]
            for question in ("Is there a cat?", "Is there a cow?"):
                await box.fill(question)
                await watch.click()
            await log.get_by_text("At most 2 watches can be set here.").wait_for()
            dog = next(m["id"] for m in played.heard if m["type"] == "watch")
            played.say(type="alert", metadata={"trigger": dog}, text="Yes.", at_s=3.0, evidence=[])
            await page.locator(".alert", has_text="00:03 Is there a dog? Yes.").wait_for()
            assert "Alert: Is there a dog? Yes." in await page.locator("#alarm").inner_text()
            await page.get_by_role("button", name="Stop watching: Is there a dog?").click()
            assert played.heard[-1] == {"type": "unwatch", "id": dog}
            focused = await page.evaluate("document.activeElement.getAttribute('aria-label')")
            assert focused == "Stop watching: Is there a cat?"

    run_clean(main(), 120)


def test_answers_stream_can_be_cancelled_and_long_ones_are_read_in_peace() -> None:
    async def main() -> None:
        played = PlayedServer(memory(5))
        async with serving() as server, browsing(server, played=played) as page:
            await status(page, "Waiting for a source")
            await ask(page, "A question?")
            (asked,) = [m for m in played.heard if m["type"] == "ask"]
            played.say(type="answer.started", id=asked["id"], warning="The stream is at 00:05.")
            await page.locator(".answer .warning", has_text="The stream is at 00:05.").wait_for()
            played.say(type="answer.delta", id=asked["id"], text="At 00")
            answer = page.locator(".answer .text")
            await answer.get_by_text("At 00").wait_for()
            assert await page.locator("#said").inner_text() == "", "pieces are not read out"
            played.finish(asked["id"], "At 00:04, and at 59:00.\n" * 80, warning="The stream is at 00:05.")
            await page.locator("#said", has_text="The stream is at 00:05. Answer: At 00:04").wait_for()
            assert await page.locator(".answer .warning").count() == 1
            seen = "(() => { const box = document.getElementById('log-end').getBoundingClientRect();"
            seen += "return box.bottom <= innerHeight && box.top > 0 })()"
            assert await page.evaluate(seen), "the end is scrolled to"
            await page.locator("#log").evaluate("log => { log.scrollTop = 0 }")
            await page.locator("#newest").wait_for()
            await ask(page, "Another?\nIn two lines?")
            assert await page.evaluate(seen), "who asks wants to see the answer"
            await page.locator("#newest").wait_for(state="hidden")
            await page.locator("#log").evaluate("log => { log.scrollTop = 0 }")
            await page.locator("#newest").wait_for()
            second = [m for m in played.heard if m["type"] == "ask"][-1]
            played.say(type="answer.started", id=second["id"])
            played.say(type="answer.delta", id=second["id"], text="Well.")
            await answer.get_by_text("Well.").wait_for()
            assert await page.locator("#log").evaluate("log => log.scrollTop") == 0, "who reads is left in peace"
            await page.get_by_role("button", name="Newest").click()
            assert await page.evaluate(seen)
            await page.get_by_role("button", name="Cancel").click()
            assert played.heard[-1] == {"type": "cancel", "id": second["id"]}
            assert await page.locator(".answer .warning").count() == 1
            played.finish(second["id"], "Well.")
            await page.get_by_role("button", name="Cancel").wait_for(state="detached")
            await page.get_by_role("button", name="59:00").first.click()
            await page.get_by_text("The stream has not come to 59:00 yet.").first.wait_for()

    run_clean(main(), 120)


def test_frames_the_server_cannot_take_are_spoken_of_once() -> None:
    async def main() -> None:
        async with serving(ListMaker(sees=False)) as server, browsing(server) as page:
            await page.locator("#fps").select_option("5")
            await page.get_by_role("button", name="Camera").click()
            await page.get_by_text("The server cannot take these frames: unsupported_content.").first.wait_for()
            await page.wait_for_timeout(1000)
            assert await page.locator("#log .problem").count() == 1

    run_clean(main(), 120)


def test_the_screen_stays_awake_while_something_is_watched() -> None:
    script = """window.locks = 0;
      Object.defineProperty(navigator, "wakeLock", { value: { request: async () => {
        locks += 1;
        return { release: async () => { locks -= 1; } };
      } } });"""

    async def main() -> None:
        async with serving() as server, browsing(server, script=script) as page:
            await status(page, "Waiting for a source")
            assert await page.evaluate("locks") == 0
            await page.get_by_role("button", name="Camera").click()
            await until(page, "locks === 1")
            await page.get_by_role("button", name="Stop").click()
            await until(page, "locks === 0")

    run_clean(main(), 120)
