"""The page's files: served to everybody, naming nobody else; and the memory that the page shows."""

import re
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import pytest
from support.browsing import shared_model
from support.lived_engine import make_engine
from support.realtime_clients import KEY, serving
from support.serving import picture, run_clean
from support.sockets import streaming

from inf_stream.base.events import Frame
from inf_stream.server.running import RunningServer, running_server
from inf_stream.server.sessions.engines import UsageEngine
from inf_stream.server.web import files
from inf_stream.server.web.access import Access

S = 1_000_000_000
PAGE = Path(files.__file__).parent / "page"


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
                text = script.read_text(encoding="utf-8")
                named |= {f"/page/{name}" for name in re.findall(r'from "\./([^"]+)"', text)}
                named |= set(re.findall(r'new Worker\("([^"]+)"\)', text))
            assert named == {f"/page/{file.name}" for file in PAGE.iterdir() if file.name != "index.html"}
            for path in named:
                status, text, headers = await fetched(server, path)
                assert (status, bool(text)) == (200, True)
                assert headers["X-Content-Type-Options"] == "nosniff"
            assert (await fetched(server, "/v1/models"))[0] == 401, "the rest still asks for one"

    run_clean(main())


def test_pages_of_strange_names_get_the_page_itself_which_says_why_they_get_no_more() -> None:
    async def main() -> None:
        async with serving() as server:
            strange = {"Origin": "http://strange.example", "Host": "strange.example"}
            assert (await fetched(server, "/page/page.js", headers=strange))[0] == 200
            status, text, _ = await fetched(server, "/v1/models", headers=strange)
            assert status == 403
            assert "start it with keys, or name the origin in --origins" in text
            assert (await fetched(server, "/health", headers=strange))[0] == 403

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
