"""The page for everybody: phones, keyboards, screen readers, weak eyes; in light and dark, and over plain HTTP."""

from typing import Any

import pytest
from support.browsing import ELSEWHERE, PlayedServer, ask, browsing, memory, needs_browser, status
from support.realtime_clients import KEY, serving
from support.serving import ListMaker, run_clean

pytestmark = needs_browser
PHONE, NARROW, DESK = (390, 844), (320, 568), (1280, 800)
FITS = "document.documentElement.scrollWidth <= window.innerWidth"
CONTRAST = """([selector, property, behind]) => {
  const paint = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const light = (colour) => {
    paint.fillStyle = colour;
    paint.fillRect(0, 0, 1, 1);
    const [r, g, b] = [...paint.getImageData(0, 0, 1, 1).data].slice(0, 3).map((value) => {
      const share = value / 255;
      return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const [name, pseudo] = selector.split("::");
  const style = getComputedStyle(document.querySelector(name), pseudo && `::${pseudo}`);
  const pair = [light(style[property]), light(getComputedStyle(document.querySelector(behind)).backgroundColor)];
  return (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05);
}"""
"""Contrast of a property of one element against the ground of another, as WCAG 2 defines it."""


async def violations(page: Any) -> list[str]:
    """What axe-core finds against WCAG 2.2 A and AA and its best practices."""
    axe = pytest.importorskip("axe_playwright_python.async_playwright").Axe()
    found = (await axe.run(page, options={"rules": {"target-size": {"enabled": True}}})).response
    return [f"{rule['id']}: {node['html'][:120]}" for rule in found["violations"] for node in rule["nodes"]]


async def fill(page: Any, played: PlayedServer) -> None:
    """Have one of everything on the page: a long answer, a running one, an alert, a problem, a watch, the past."""
    await page.get_by_role("button", name="Camera").click()
    await page.locator("#axis-to", has_text="now 00:30").wait_for()
    await ask(page, "A question of a length that does not fit into a single line of any phone, does it? " * 3)
    played.say(type="answer.started", id="q1", warning="It is about a time that the stream does not have: 25:00.")
    played.finish("q1", "At 00:04 there was a woman. " * 30 + "x" * 400, evidence=(1, 2, 4, 8, 16, 29))
    await page.locator("#question").fill("Is there a dog?")
    await page.get_by_role("button", name="Tell me when").click()
    played.say(type="alert", metadata={"trigger": "w1"}, text="Yes.", at_s=3.0, evidence=[{"at_s": 3, "share": 1}])
    played.say(type="error", code="x", message="Something that the server did not like.", param=None)
    await ask(page, "Still running?")
    played.say(type="answer.delta", id="q2", text="It begins")
    await page.get_by_text("It begins").wait_for()
    await page.locator("#strip").focus()
    await page.keyboard.press("ArrowLeft")
    await page.locator("#live").wait_for()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [DESK, PHONE])
def test_axe_finds_nothing(scheme: str, size: tuple[int, int]) -> None:
    async def main() -> None:
        played = PlayedServer(memory(30))
        still = {"size": size, "scheme": scheme, "reduced_motion": "reduce"}
        async with serving() as server, browsing(server, played=played, **still) as page:
            await status(page, "Waiting for a source")
            assert await violations(page) == []
            await fill(page, played)
            assert await violations(page) == []
            await played.close(1001, "the server stops")
            await page.locator("#countdown", has_text="Trying again").wait_for()
            assert await violations(page) == []

    run_clean(main(), 200)


def test_axe_finds_nothing_where_a_key_is_asked_for() -> None:
    async def main() -> None:
        async with serving(keys=(KEY,)) as server, browsing(server, "Failed to load", "WebSocket connection") as page:
            await page.locator("#key-form").wait_for()
            assert await violations(page) == []

    run_clean(main(), 120)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_what_is_no_text_is_seen_as_well(scheme: str) -> None:
    async def main() -> None:
        async with serving() as server, browsing(server, scheme=scheme, reduced_motion="reduce") as page:
            await status(page, "Waiting for a source")
            for selector, value, behind, least in (
                ("#question", "borderTopColor", "#talking", 3),
                ("#camera", "borderTopColor", "body", 3),
                ("#lamp", "backgroundColor", "body", 3),
                ("#question::placeholder", "color", "#question", 4.5),
            ):
                contrast = await page.evaluate(CONTRAST, [selector, value, behind])
                assert contrast >= least, f"{selector} {value}: {contrast:.2f}"
            for control, behind in (("#camera", "body"), ("#strip", "body"), ("#question", "#talking")):
                await page.keyboard.press("Shift")
                await page.locator(control).focus()
                width = await page.locator(control).evaluate("at => parseFloat(getComputedStyle(at).outlineWidth)")
                assert width >= 2, f"{control} has a ring"
                assert await page.evaluate(CONTRAST, [control, "outlineColor", behind]) >= 3, (
                    f"{control}'s ring is seen"
                )

    run_clean(main(), 120)


@pytest.mark.parametrize("size", [PHONE, NARROW, (844, 390), DESK])
def test_everything_fits(size: tuple[int, int]) -> None:
    room = """(() => {
      const box = document.getElementById("question");
      const style = getComputedStyle(box);
      const paper = document.createElement("canvas").getContext("2d");
      paper.font = style.font;
      const inside = box.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight);
      return inside - paper.measureText(box.placeholder).width;
    })()"""

    async def main() -> None:
        played = PlayedServer(memory(30))
        async with serving() as server, browsing(server, played=played, size=size) as page:
            await status(page, "Waiting for a source")
            assert await page.evaluate(FITS)
            assert await page.evaluate(room) >= 0, "the placeholder is not cut"
            await fill(page, played)
            assert await page.evaluate(FITS)
            for part in ("#question", "#stage", "#strip"):
                box = await page.locator(part).bounding_box()
                assert box["width"] > 0.3 * size[0], part
                if size in (PHONE, DESK):
                    assert 0 <= box["y"] <= box["y"] + box["height"] <= size[1], f"{part} stays in view"

    run_clean(main(), 120)


def test_all_of_it_by_keyboard() -> None:
    async def main() -> None:
        maker = ListMaker()
        async with serving(maker) as server, browsing(server) as page:
            await status(page, "Waiting for a source")
            order = []
            for _ in range(12):
                await page.keyboard.press("Tab")
                order.append(await page.evaluate("document.activeElement.id || document.activeElement.textContent"))
            assert order == [
                *("skip", "camera", "screen", "file", "fps", "strip", "log"),
                *("What do you see?", "What was shown at 00:05?", "question", "aside", "watch"),
            ]
            await page.locator("#skip").focus()
            await page.keyboard.press("Enter")
            await page.keyboard.type("What do you see?")
            await page.keyboard.press("Shift+Enter")
            await page.keyboard.type("And hear?")
            maker.gate.clear()
            await page.keyboard.press("Enter")
            assert await page.locator(".question").inner_text() == "What do you see?\nAnd hear?"
            await status(page, "Answering")
            cancel = page.get_by_role("button", name="Cancel")
            await cancel.focus()
            await page.keyboard.press("Enter")
            maker.gate.set()
            await page.locator(".failure", has_text="Cancelled.").wait_for()
            assert await page.evaluate("document.activeElement.id") == "log", "the focus is not lost with its button"
            maker.gate.clear()
            await page.locator("#skip").focus()
            await page.keyboard.press("Enter")
            await page.keyboard.type("Again?")
            await page.keyboard.press("Enter")
            await status(page, "Answering")
            await page.keyboard.press("Escape")
            maker.gate.set()
            await page.locator(".failure").nth(1).wait_for()

    run_clean(main(), 120)


@pytest.mark.parametrize(("motion", "moves"), [("reduce", False), ("no-preference", True)])
def test_nothing_moves_for_who_wants_no_motion(motion: str, moves: bool) -> None:
    async def main() -> None:
        played = PlayedServer()
        async with serving() as server, browsing(server, played=played, reduced_motion=motion) as page:
            await status(page, "Waiting for a source")
            await ask(page, "Anything?")
            await status(page, "Answering")
            running = "document.getAnimations().filter((at) => at instanceof CSSAnimation).length > 0"
            assert await page.evaluate(running) == moves

    run_clean(main(), 120)


def test_over_plain_http_from_elsewhere_it_says_what_the_camera_needs() -> None:
    async def main() -> None:
        played = PlayedServer()
        async with serving() as server, browsing(server, host=ELSEWHERE, played=played, size=PHONE) as page:
            await status(page, "Waiting for a source")
            said = await page.locator("#insecure").inner_text()
            assert "Start the server with --self-signed" in said
            assert f"https://{ELSEWHERE}:{server.port}/" in said
            assert await page.locator("#insecure").is_visible()
            assert await page.get_by_role("button", name="Camera").is_disabled()
            assert await page.get_by_role("button", name="Screen").is_disabled()
            assert await page.get_by_role("button", name="File").is_enabled()
            assert await page.evaluate(FITS)

    run_clean(main(), 120)
