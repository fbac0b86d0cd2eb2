"""The official client of the Realtime protocol on a server of this process, with its own schema as an oracle."""

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from openai import AsyncOpenAI
from openai.resources.realtime.realtime import AsyncRealtimeConnection
from openai.types.realtime import RealtimeServerEvent
from pydantic import TypeAdapter
from support.serving import ListMaker, picture, server_settings

from inf_stream.server.running import RunningServer, running_server
from inf_stream.server.web.access import Access

ORACLE: TypeAdapter[Any] = TypeAdapter(RealtimeServerEvent)
KEY = "a-key-of-many-characters"


@asynccontextmanager
async def serving(
    maker: ListMaker | None = None, keys: tuple[str, ...] = (), **changes: Any
) -> AsyncIterator[RunningServer]:
    """A whole server on a free port of this machine; `changes` are settings."""
    settings = server_settings(**{"drain_s": 5.0} | changes)
    async with running_server(maker or ListMaker(), settings, Access(keys)) as server:
        yield server


@asynccontextmanager
async def client_of(server: RunningServer, **more: Any) -> AsyncIterator[AsyncOpenAI]:
    """The official client."""
    async with AsyncOpenAI(api_key=KEY, base_url=f"{server.address}/v1", max_retries=0, **more) as client:
        yield client


@asynccontextmanager
async def connected(server: RunningServer, **more: Any) -> AsyncIterator[AsyncRealtimeConnection]:
    """The official client, connected."""
    async with client_of(server) as client, client.realtime.connect(model="lists", **more) as connection:
        yield connection


async def until(connection: AsyncRealtimeConnection, *kinds: str) -> list[Any]:
    """Events up to the first of one of these kinds, each checked against the client's own schema."""
    seen: list[Any] = []
    while not seen or seen[-1].type not in kinds:
        data = await asyncio.wait_for(connection.recv_bytes(), 20)
        ORACLE.validate_json(data)
        event = connection.parse_event(data)
        assert event.event_id
        seen.append(event)
        assert event.type != "error" or "error" in kinds, event
    return seen


def data_uri(data: bytes | None = None, kind: str = "jpeg") -> str:
    """An image as clients write it."""
    return f"data:image/{kind};base64," + base64.b64encode(picture() if data is None else data).decode()


def image_item(**more: Any) -> Any:
    """A frame."""
    part = {"type": "input_image", "image_url": data_uri(), **more}
    return {"type": "message", "role": "user", "content": [part]}


def text_item(text: str, role: str = "user") -> Any:
    """A text."""
    kind = "output_text" if role == "assistant" else "input_text"
    return {"type": "message", "role": role, "content": [{"type": kind, "text": text}]}
