"""The client that README.md shows runs as it is, against the server that README.md says to start."""

import asyncio
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from support.realtime_clients import serving
from support.serving import ListMaker

README = Path(__file__).parents[2] / "README.md"


@pytest.fixture
def address() -> Iterator[str]:
    """A server in a thread of its own."""
    loop, started, found = asyncio.new_event_loop(), threading.Event(), list[str]()
    ending: asyncio.Event

    async def serve() -> None:
        nonlocal ending
        ending = asyncio.Event()
        async with serving(ListMaker()) as server:
            found.append(server.address)
            started.set()
            await ending.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    assert started.wait(20)
    yield found[0]
    loop.call_soon_threadsafe(lambda: ending.set())
    thread.join(20)
    loop.close()


@pytest.mark.filterwarnings("ignore:connect\\(\\) must be used as a context manager")  # openai's own use of websockets
def test_the_client_in_the_readme_runs(
    address: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Webcam:
        def __init__(self, number: int):
            assert number == 0

        def read(self) -> tuple[bool, np.ndarray]:
            return True, np.zeros((24, 32, 3), dtype=np.uint8)

    monkeypatch.setattr(cv2, "VideoCapture", Webcam)
    monkeypatch.setattr(time, "sleep", lambda _s: None)
    shown = README.read_text(encoding="utf-8").partition("<!-- client -->")[2].partition("<!-- /client -->")[0]
    code = shown.strip().removeprefix("```python").removesuffix("```")
    assert len(code.strip().splitlines()) <= 20
    assert "http://127.0.0.1:8765" in code
    exec(compile(code.replace("http://127.0.0.1:8765", address), "README.md", "exec"), {})
    assert capsys.readouterr().out.startswith("w")
