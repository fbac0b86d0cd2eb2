"""`inf-stream serve --state` as a program: killed, started again, stopped, started again."""

import asyncio
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
from support.command_line import save_tiny
from support.durable import saved, see, tell
from support.serving import run_clean
from support.sockets import StreamClient, streaming

FRAMES = [1000 * second for second in range(1, 13)]
QUESTION_AFTER = 8


@dataclass
class Program:
    """A server in a process of its own."""

    process: "subprocess.Popen[str]"
    address: str


@contextmanager
def program(model: Path, folder: Path) -> Iterator[Program]:
    command = [sys.executable, "-m", "inf_stream", "serve", "--model", str(model), "--port", "0", "--threads", "1"]
    sizes = ["--budget", "128", "--max-tokens", "12", "--set", "cache.chunk_tokens=64"]
    state = ["--state", str(folder), "--set", "server.state_every_s=0.2", "--set", "server.frames_per_second=1000"]
    with subprocess.Popen(
        [*command, *sizes, *state], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stderr is not None
        try:
            line = process.stderr.readline()
            found = re.search(r" at (http://127\.0\.0\.1:\d+)/ ", line)
            assert found is not None, line
            note = process.stderr.readline()
            assert f"sessions outlive it in '{folder}', which holds {len(saved(folder))}" in note
            yield Program(process, found[1])
        finally:
            process.kill()
            rest = process.stderr.read()
        assert "Traceback" not in rest, rest


async def saved_again(folder: Path) -> None:
    """Wait until the folder holds a session that was saved after this was called."""
    before = {path: path.stat().st_mtime_ns for path in saved(folder)}
    while all(path.stat().st_mtime_ns == before.get(path) for path in saved(folder)):
        await asyncio.sleep(0.01)


async def until_killed(server: Program, folder: Path) -> StreamClient:
    """A session that is saved several times; what comes last may or may not be in the latest save."""
    async with streaming(server) as client:
        await client.next()
        await client.say("watch", id="all", question="what now?", expect="", every_s=100, cooldown_s=0)
        await see(client, *FRAMES[:QUESTION_AFTER])
        await tell(client, "one")
        if not any(m["type"] == "alert" for m in client.heard):
            await client.until("alert")
        await saved_again(folder)
        await see(client, *FRAMES[QUESTION_AFTER:])
        server.process.kill()
        assert (await client.closed())[0] == 0, "it had no time to say anything"
    return client


async def sessions_of(server: Program) -> int:
    async with aiohttp.ClientSession() as client, client.get(f"{server.address}/v1/sessions") as response:
        return len((await response.json())["data"])


async def twin(server: Program, frames: int) -> list[str]:
    """What a session says that saw as much, and was never interrupted."""
    async with streaming(server) as client:
        await client.next()
        await see(client, *FRAMES[:QUESTION_AFTER])
        told = [await tell(client, "one")]
        await see(client, *FRAMES[QUESTION_AFTER:frames], 200_000)
        told.append(await tell(client, "two"))
        await see(client, 210_000)
        return [*told, await tell(client, "three")]


def test_a_session_outlives_a_server_that_is_killed_and_one_that_is_stopped(tmp_path: Path) -> None:
    model, folder = save_tiny(tmp_path / "model", "smolvlm"), tmp_path / "state"
    folder.mkdir()
    first: list[StreamClient] = []

    async def before(server: Program) -> None:
        first.append(await until_killed(server, folder))

    with program(model, folder) as server:
        run_clean(before(server))
    assert [path.suffix for path in saved(folder)] == [".live"]
    hello, seen = first[0].heard[0], first[0].heard[-1]["seq"]
    told: list[str] = []
    wanted: list[str] = []
    second: list[StreamClient] = []

    async def between(server: Program) -> None:
        async with streaming(server, f"?resume={hello['handle']}&after={seen}") as again:
            greeting = await again.next()
            assert greeting["session"] == hello["session"]
            assert QUESTION_AFTER <= greeting["next_frame"] <= len(FRAMES)
            assert 0 < greeting["lost_s"] < 120
            await see(again, 200_000)
            told.append(await tell(again, "two"))
            assert min(m["seq"] for m in again.heard[1:]) > seen
            assert [m["at_s"] for m in again.heard if m["type"] == "alert"] == [200], "the watch fires again"
            lost = sum(m.get("reason") == "lost" for m in again.heard)
            wanted.extend(await twin(server, greeting["next_frame"] - lost))
            while await sessions_of(server) > 1 or len(saved(folder)) > 1:  # the twin's ended for good
                await asyncio.sleep(0.02)
            server.process.send_signal(signal.SIGTERM)
            assert await again.closed() == (1001, "the server stops")
        second.append(again)
        assert await asyncio.to_thread(server.process.wait, 30) == 0

    with program(model, folder) as server:
        run_clean(between(server))
    assert [path.suffix for path in saved(folder)] == [".whole"]

    async def after(server: Program) -> None:
        last = second[0].heard[-1]["seq"]
        async with streaming(server, f"?resume={hello['handle']}&after={last}") as third:
            assert (await third.next())["lost_s"] == second[0].heard[0]["lost_s"], "nothing more was lost"
            await see(third, 210_000)
            told.append(await tell(third, "three"))
            assert [m["seq"] for m in third.heard] == list(range(last, last + len(third.heard)))
        while saved(folder):  # it ended for good
            await asyncio.sleep(0.02)

    with program(model, folder) as server:
        run_clean(after(server))
    assert told == wanted[1:]
