"""The page in a real browser: headless Chromium with a fake camera, at a real server or at one that is played."""

import json
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest
from support.serving import server_settings
from support.tiny_models import tiny_weights

from inf_stream.base.config import AnswerSettings, CacheSettings, ModelSettings
from inf_stream.server.running import RunningServer
from inf_stream.server.sessions.engines import SharedModel

CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), ""
)
ELSEWHERE = "elsewhere.test"
"""A name of this machine that browsers do not take for it."""
needs_browser = pytest.mark.skipif(not CHROMIUM, reason="no Chromium on this machine")


def shared_model(**changes: Any) -> SharedModel:
    """A tiny model that sees; `changes` are settings of the server."""
    settings = server_settings(**changes)
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


@asynccontextmanager
async def browsing(
    server: RunningServer,
    *expected: str,
    size: tuple[int, int] = (1280, 800),
    scheme: str = "light",
    host: str = "",
    played: "PlayedServer | None" = None,
    script: str = "",
    **more: Any,
) -> AsyncIterator[Any]:
    """The page; errors on it fail the test, but those with expected words.

    Args:
        server: where the page comes from.
        expected: words of errors in the browser's console that may come.
        size: of the window.
        scheme: light or dark.
        host: name under which the browser knows the server; empty: as it is.
        played: speaks the protocol instead of the server.
        script: runs before the page's own.
        more: options of the browser's context.
    """
    playwright = pytest.importorskip("playwright.async_api")
    arguments = ["--no-sandbox", "--use-fake-device-for-media-stream=device-count=2", "--use-fake-ui-for-media-stream"]
    arguments.append(f"--host-resolver-rules=MAP {ELSEWHERE} 127.0.0.1")
    problems: list[str] = []
    async with playwright.async_playwright() as driver:
        browser = await driver.chromium.launch(executable_path=CHROMIUM, args=arguments)
        width, height = size
        context = await browser.new_context(
            viewport={"width": width, "height": height}, color_scheme=scheme, permissions=["camera"], **more
        )
        page = await context.new_page()
        page.set_default_timeout(30_000)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
        await page.add_init_script(script)
        if played is not None:
            await page.route_web_socket("**/v1/stream*", played.answer)
        port = urlsplit(server.address).port
        await page.goto(f"http://{host}:{port}/" if host else server.address)
        try:
            yield page
        finally:
            await browser.close()
    assert [p for p in problems if not any(words in p for words in expected)] == []


async def status(page: Any, text: str) -> None:
    """Wait until the page says so."""
    await page.locator("#status", has_text=text).wait_for()


async def until(page: Any, expression: str) -> None:
    """Wait until it holds on the page, whose rules forbid Playwright's own way to wait for expressions."""
    while not await page.evaluate(expression):
        await page.wait_for_timeout(20)


async def ask(page: Any, question: str) -> None:
    """Type a question and send it."""
    await page.locator("#question").fill(question)
    await page.keyboard.press("Enter")


class PlayedServer:
    """Says what a test wants, for states that a real server comes to late or seldom.

    Attributes:
        heard: messages of the page, parsed; frames are left out.
        connections: how many there were.
        replies: by the type of a message, what is said to it.
        memory: of the statistics.
        settles: whether it says what became of frames.
    """

    def __init__(self, memory: dict[str, Any] | None = None, **limits: int):
        self.heard: list[dict[str, Any]] = []
        self.connections = 0
        self.memory = memory
        self.settles = True
        self.replies: dict[str, Callable[[dict[str, Any]], list[dict[str, Any]]]] = {
            "stats": self._stats,
            "watch": lambda asked: [{**asked, "type": "watching"}],
        }
        self._limits = {"budget_tokens": 2048, "text_characters": 1000, "watches": 2} | limits
        self._frames = 0
        self._socket: Any = None

    def answer(self, socket: Any) -> None:
        """Take a connection (a handler of Playwright's)."""
        self.connections += 1
        self._socket = socket
        socket.on_message(self._hear)
        self.say(type="hello", seq=1, handle="h", model="a-model", sees=True, limits=self._limits)

    def say(self, **message: Any) -> None:
        """One message to the page."""
        self._socket.send(json.dumps(message))

    async def close(self, code: int, reason: str) -> None:
        """Hang up."""
        await self._socket.close(code=code, reason=reason)

    def finish(
        self, question_id: str, text: str, *, at_s: float = 9.0, evidence: tuple[float, ...] = (), **other: str
    ) -> None:
        """A whole answer at once, with these other fields."""
        weights = [{"at_s": second, "share": 0.2} for second in evidence]
        more = {"reason": "stop", "tokens": 3, "ttft_s": 0.5, "at_s": at_s, "evidence": weights, "stats": {}}
        self.say(type="answer.finished", id=question_id, text=text, **more, **other)

    def _hear(self, message: str | bytes) -> None:
        if isinstance(message, bytes):
            at_s = 0.0 if self.memory is None else self.memory["width_s"] * len(self.memory["kept"])
            if self.settles:
                self.say(type="frame", number=self._frames, at_s=at_s, outcome="accepted")
                self._frames += 1
            return
        heard = json.loads(message)
        self.heard.append(heard)
        for reply in self.replies.get(heard["type"], lambda _asked: [])(heard):
            self.say(**reply)

    def _stats(self, _asked: dict[str, Any]) -> list[dict[str, Any]]:
        counts = {"accepted": self._frames, "dropped": 0, "error": 0, "reasons": {}}
        said = {"type": "stats", "stream_s": 0.0, "questions_waiting": 0, "frames": counts}
        return [said | {"memory": self.memory}]


def memory(bars: int, width_s: float = 1.0) -> dict[str, Any]:
    """Of a stream whose every third bar is forgotten."""
    kept = [0.0 if bar % 3 == 1 else 20.0 for bar in range(bars)]
    return {"from_s": 0.0, "width_s": width_s, "kept": kept, "tokens_kept": 100, "most_tokens": 200}
