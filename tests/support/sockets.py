"""Plain WebSocket clients of `/v1/stream`, and raw ones that misbehave."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from inf_stream.server.running import RunningServer


@asynccontextmanager
async def streaming(server: RunningServer, query: str = "", **more: Any) -> AsyncIterator["StreamClient"]:
    """A client of `/v1/stream`."""
    address = server.address.replace("http", "ws", 1)
    async with connect(f"{address}/v1/stream{query}", compression=None, **more) as socket:
        yield StreamClient(socket)


class StreamClient:
    """Says and hears JSON; remembers all it heard."""

    def __init__(self, socket: ClientConnection):
        self.socket = socket
        self.heard: list[dict[str, Any]] = []

    async def say(self, kind: str, **fields: Any) -> None:
        await self.socket.send(json.dumps({"type": kind, **fields}))

    async def frame(self, data: bytes) -> None:
        await self.socket.send(data)

    async def next(self) -> dict[str, Any]:
        message: dict[str, Any] = json.loads(await asyncio.wait_for(self.socket.recv(), 20))
        self.heard.append(message)
        return message

    async def until(self, found: Callable[[dict[str, Any]], bool] | str) -> dict[str, Any]:
        """The next message of that type, or for which `found` holds."""
        while True:
            message = await self.next()
            if message["type"] == found if isinstance(found, str) else found(message):
                return message

    async def outcomes(self, count: int) -> dict[int, tuple[str, str | None]]:
        """What became of the first `count` frames."""
        while True:
            frames = [m for m in self.heard if m["type"] == "frame"]
            assert len({m["number"] for m in frames}) == len(frames), "one outcome for each frame"
            if len(frames) >= count:
                return {m["number"]: (m["outcome"], m.get("reason")) for m in frames}
            await self.next()

    async def closed(self) -> tuple[int, str]:
        """Code and reason, once the server has hung up."""
        try:
            while True:
                await self.next()
        except ConnectionClosed as closed:
            return (0, "") if closed.rcvd is None else (int(closed.rcvd.code), closed.rcvd.reason)
