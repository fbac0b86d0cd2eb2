"""The clients that the READMEs show run as they are, against the servers that they say to start."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from pathlib import Path

import cv2
import numpy as np
import pytest
from support.gemini_clients import serving_securely
from support.realtime_clients import serving
from support.serving import ListMaker, picture

from inf_stream.server.running import RunningServer

README = Path(__file__).parents[2] / "README.md"
SERVER_README = Path(__file__).parents[2] / "inf_stream" / "server" / "README.md"


@contextmanager
def in_thread(serving: Callable[[], AbstractAsyncContextManager[RunningServer]]) -> Iterator[RunningServer]:
    """A server in a thread of its own."""
    loop, started, found = asyncio.new_event_loop(), threading.Event(), list[RunningServer]()
    ending: asyncio.Event

    async def serve() -> None:
        nonlocal ending
        ending = asyncio.Event()
        async with serving() as server:
            found.append(server)
            started.set()
            await ending.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    assert started.wait(20)
    try:
        yield found[0]
    finally:
        loop.call_soon_threadsafe(lambda: ending.set())
        thread.join(20)
        loop.close()


def shown(readme: Path, mark: str) -> str:
    """The code that a README shows between two marks."""
    part = readme.read_text(encoding="utf-8").partition(f"<!-- {mark} -->")[2].partition(f"<!-- /{mark} -->")[0]
    return part.strip().removeprefix("```python").removesuffix("```")


@pytest.mark.filterwarnings("ignore:connect\\(\\) must be used as a context manager")  # openai's own use of websockets
def test_the_client_in_the_readme_runs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    class Webcam:
        def __init__(self, number: int):
            assert number == 0

        def read(self) -> tuple[bool, np.ndarray]:
            return True, np.zeros((24, 32, 3), dtype=np.uint8)

    monkeypatch.setattr(cv2, "VideoCapture", Webcam)
    monkeypatch.setattr(time, "sleep", lambda _s: None)
    code = shown(README, "client")
    assert len(code.strip().splitlines()) <= 20
    assert "http://127.0.0.1:8765" in code
    with in_thread(lambda: serving(ListMaker())) as server:
        exec(compile(code.replace("http://127.0.0.1:8765", server.address), "README.md", "exec"), {})
    assert capsys.readouterr().out.startswith("w")


def test_the_client_of_gemini_live_in_the_readme_of_the_server_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    @asynccontextmanager
    async def secure() -> AsyncIterator[RunningServer]:
        async with serving_securely(keys=()) as server:
            yield server.running

    monkeypatch.chdir(tmp_path)
    Path("photo.jpg").write_bytes(picture())
    code = shown(SERVER_README, "gemini")
    assert code.count("8765") == 2
    with in_thread(secure) as server:
        exec(compile(code.replace("8765", str(server.port)), "README.md", "exec"), {})
    assert capsys.readouterr().out.startswith("w")
