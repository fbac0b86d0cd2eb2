"""Servers that keep their sessions in a folder, what their clients do, and what is left of a server that is killed."""

import asyncio
import contextlib
import re
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
from support.serving import GatedEngine, ListMaker, picture, server_settings
from support.sockets import StreamClient

from inf_stream.base.config import Settings
from inf_stream.base.events import Question
from inf_stream.server.connections.state_folder import StateFolder
from inf_stream.server.running import RunningServer, running_server
from inf_stream.server.sessions.engines import EngineMaker
from inf_stream.server.web.access import Access

MIB = 1 << 20


class ReadingEngine(GatedEngine):
    """One whose answers depend on the words of the questions, too."""

    def begin_answer(self, question: Question) -> None:
        super().begin_answer(question)
        self.memory.append(question.text)


class ReadingMaker(ListMaker):
    """Makes such engines."""

    engine = ReadingEngine


def opened(path: Path, *, most_sessions: int = 8, most_bytes: int = 64 * MIB, expiry_s: float = 1000.0) -> StateFolder:
    return StateFolder(path, most_sessions=most_sessions, most_bytes=most_bytes, expiry_s=expiry_s)


@asynccontextmanager
async def durable(
    path: Path, maker: EngineMaker | None = None, settings: Settings | None = None, **changes: Any
) -> AsyncIterator[RunningServer]:
    """A whole server; `changes` are settings. Nothing is saved now and then unless they say so."""
    settings = settings or server_settings(**{"drain_s": 5.0, "state_every_s": 1e6} | changes)
    with contextlib.closing(opened(path)) as folder:
        async with running_server(maker or ReadingMaker(), settings, Access(()), folder=folder) as server:
            yield server


def wreck(path: Path, into: Path) -> Path:
    """A copy of the folder as it would be found if the server were killed now."""
    shutil.copytree(path, into)
    return into


def saved(path: Path) -> list[Path]:
    """The sessions in a folder."""
    return sorted(one for one in path.iterdir() if one.suffix in (".live", ".whole"))


async def until_saved(path: Path, *suffixes: str) -> None:
    """Wait until the folder holds just such sessions."""
    while sorted(one.suffix for one in saved(path)) != sorted(suffixes):
        await asyncio.sleep(0.002)


async def away(server: RunningServer) -> None:
    """Wait until the server knows that its clients are not connected."""
    while any(channel.is_connected for channel in server.channels):
        await asyncio.sleep(0.002)


def break_off(client: StreamClient) -> None:
    """Let the connection be lost without a word, as when a network breaks."""
    client.socket.transport.abort()


async def see(client: StreamClient, *times_ms: int) -> None:
    """Stream frames, each alone in its step; those that were lost with another server count for nothing."""
    for time_ms in times_ms:
        await client.say("frame", timestamp_ms=time_ms)
        await client.frame(picture(grey=time_ms // 1000 % 256))
        settled = await client.until(lambda m: m["type"] == "frame" and m.get("reason") != "lost")
        assert settled["outcome"] == "accepted", settled


async def tell(client: StreamClient, name: str) -> str:
    """The whole answer to a question."""
    await client.say("ask", id=name, text=f"what of {name}?", in_order=True)
    finished = await client.until("answer.finished")
    assert finished["id"] == name
    assert finished["reason"] in ("stop", "length")
    return str(finished["text"])


async def counted(server: RunningServer, outcome: str) -> int:
    """How many sessions were saved, or what became of them instead, as the metrics say."""
    return int(await gauge(server, f'inf_stream_saves_total{{outcome="{outcome}"}}'))


async def gauge(server: RunningServer, name: str) -> float:
    """A number of the metrics; 0 if it is not there."""
    async with aiohttp.ClientSession() as session, session.get(f"{server.address}/metrics") as response:
        text = await response.text()
    found = re.search(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)
    return 0.0 if found is None else float(found[1])
