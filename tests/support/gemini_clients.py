"""The official client of the Gemini Live protocol on a server of this process, over TLS, and raw messages for it."""

import asyncio
import base64
import json
import ssl
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from google.genai import Client
from google.genai.errors import APIError
from google.genai.live import AsyncSession
from google.genai.types import Blob, HttpOptions, LiveServerMessage, SessionResumptionConfig
from support.serving import ListMaker, picture, server_settings
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from inf_stream.base.config import ServerSettings
from inf_stream.server.connections.state_folder import StateFolder
from inf_stream.server.running import RunningServer, running_server
from inf_stream.server.web.access import Access
from inf_stream.server.web.tls import self_signed_certificate, tls_context

KEY = "a-key-of-many-characters"
RESUMABLE = SessionResumptionConfig()
PATH = "/ws/google.ai.generativelanguage.v1beta.GenerativeService.BidiGenerateContent"


class SecureServer:
    """A whole server over TLS, and what its clients need."""

    def __init__(self, running: RunningServer, trust: ssl.SSLContext):
        self.running, self.trust = running, trust

    @asynccontextmanager
    async def live(self, key: str = KEY, version: str = "v1beta", **config: Any) -> AsyncIterator[AsyncSession]:
        """The official client, connected and set up."""
        options = HttpOptions(base_url=self.running.address, api_version=version, async_client_args={"ssl": self.trust})
        client = Client(api_key=key, http_options=options)
        async with client.aio.live.connect(model="lists", config=config or None) as session:
            yield session

    @asynccontextmanager
    async def socket(self, path: str = PATH, **more: Any) -> AsyncIterator["Raw"]:
        """A client that writes its messages itself."""
        address = self.running.address.replace("https", "wss", 1)
        more = {"additional_headers": {"x-goog-api-key": KEY}} | more
        async with connect(address + path, ssl=self.trust, compression=None, **more) as socket:
            yield Raw(socket)

    async def is_away(self) -> None:
        """Wait until no client is connected."""
        while any(channel.is_connected for channel in self.running.channels):
            await asyncio.sleep(0.002)

    async def is_empty(self) -> None:
        """Wait until no session is left."""
        while self.running.hub.sessions or len(self.running.channels):
            await asyncio.sleep(0.002)


@asynccontextmanager
async def serving_securely(
    maker: ListMaker | None = None,
    keys: tuple[str, ...] = (KEY,),
    folder: StateFolder | None = None,
    **changes: Any,
) -> AsyncIterator[SecureServer]:
    """A server on a free port of this machine with a certificate of its own; `changes` are settings."""
    certificate = self_signed_certificate("127.0.0.1")
    with tempfile.TemporaryDirectory() as place:
        file = Path(place) / "own.pem"
        file.write_bytes(certificate)
        tls = tls_context(ServerSettings(certificate=str(file)))
    text = certificate.decode()
    trust = ssl.create_default_context(cadata=text[text.index("-----BEGIN CERTIFICATE") :])
    settings = server_settings(**{"drain_s": 5.0} | changes)
    async with running_server(maker or ListMaker(), settings, Access(keys), tls, folder=folder) as running:
        yield SecureServer(running, trust)


class Raw:
    """Says and hears JSON; all that is heard is checked against the client's own schema."""

    def __init__(self, socket: ClientConnection):
        self.socket = socket

    async def say(self, **message: Any) -> None:
        await self.socket.send(json.dumps(message))

    async def next(self) -> dict[str, Any]:
        text = await asyncio.wait_for(self.socket.recv(), 20)
        LiveServerMessage.model_validate_json(text)
        message: dict[str, Any] = json.loads(text)
        return message

    async def until(self, kind: str) -> list[dict[str, Any]]:
        """Messages up to the first of that kind, or of server content with that field."""
        heard = [await self.next()]
        while kind not in heard[-1] and kind not in heard[-1].get("serverContent", {}):
            heard.append(await self.next())
        return heard

    async def closed(self) -> tuple[int, str]:
        """Code and reason, once the server has hung up."""
        try:
            while True:
                await self.next()
        except ConnectionClosed as closed:
            return (0, "") if closed.rcvd is None else (int(closed.rcvd.code), closed.rcvd.reason)


def endless(maker: ListMaker) -> ListMaker:
    """The next engines answer for ever."""
    maker.prepare = lambda engine: setattr(engine, "tokens_per_answer", 10**9)
    return maker


async def begun(session: AsyncSession) -> str:
    """Wait for the first piece of an answer; returns it."""

    async def told() -> str:
        async for message in session.receive():
            if message.text:
                return message.text
        raise AssertionError("no answer came")

    return await asyncio.wait_for(told(), 20)


async def refused(session: AsyncSession) -> tuple[int, str]:
    """Code and reason with which the server hangs up."""
    try:
        while True:
            await turn(session)
    except APIError as error:
        return error.code, str(error)


async def turn(session: AsyncSession) -> list[LiveServerMessage]:
    """What the client is told up to the end of a turn."""

    async def told() -> list[LiveServerMessage]:
        return [message async for message in session.receive()]

    return await asyncio.wait_for(told(), 20)


def text_of(messages: list[LiveServerMessage]) -> str:
    """What the model said."""
    return "".join(message.text or "" for message in messages)


def facts_of(messages: list[LiveServerMessage]) -> dict[str, Any]:
    """What an answer rests on, as its last content has it."""
    (content,) = [m.server_content for m in messages if m.server_content and m.server_content.generation_complete]
    assert content.model_turn is not None
    assert content.model_turn.parts is not None
    metadata = content.model_turn.parts[0].part_metadata
    assert metadata is not None
    facts: dict[str, Any] = metadata["inf_stream"]
    return facts


def handle_of(messages: list[LiveServerMessage]) -> str:
    """The latest handle to come back with."""
    updates = [m.session_resumption_update for m in messages if m.session_resumption_update]
    assert updates[-1].resumable
    assert updates[-1].new_handle
    return updates[-1].new_handle


def frame(grey: int = 90) -> Blob:
    """An image as the client takes it."""
    return Blob(data=picture(grey=grey), mime_type="image/jpeg")


def blob(data: bytes | None = None, kind: str = "image/jpeg", **more: Any) -> dict[str, Any]:
    """An image on the wire."""
    return {"mimeType": kind, "data": base64.b64encode(picture() if data is None else data).decode(), **more}
