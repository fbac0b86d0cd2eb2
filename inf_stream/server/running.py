"""A server from its first connection to its last: listens, drains, closes."""

import asyncio
import contextlib
import logging
import ssl
from collections.abc import AsyncIterator

from aiohttp import web

from inf_stream.base.config import Settings
from inf_stream.server.connections.channels import Channels
from inf_stream.server.connections.image_fetcher import ImageFetcher
from inf_stream.server.connections.session_keeper import SessionKeeper
from inf_stream.server.connections.state_folder import StateFolder
from inf_stream.server.log import fields
from inf_stream.server.protocols.image_urls import AllowedAddresses
from inf_stream.server.protocols.pictures import PictureDecoder
from inf_stream.server.sessions.engines import EngineMaker
from inf_stream.server.sessions.hub import Hub
from inf_stream.server.web.access import Access
from inf_stream.server.web.application import WebServer
from inf_stream.server.web.doorkeeper import Doorkeeper
from inf_stream.server.web.listening import EVERY_NETWORK, addresses_elsewhere, cannot_listen
from inf_stream.server.web.metrics import Metrics

_LOG = logging.getLogger(__name__)
_SHUTDOWN_S = 3.0
"""What is left of requests after their sessions have ended gets this long."""


class RunningServer:
    """What listens, and where.

    Attributes:
        hub: of all sessions.
        channels: of all WebSocket clients.
        port: TCP port.
        scheme: http or https.
    """

    def __init__(self, hub: Hub, channels: Channels, host: str, port: int, scheme: str):
        self.hub, self.channels, self.port, self.scheme = hub, channels, port, scheme
        self._host = host

    @property
    def address(self) -> str:
        """For clients on this machine, or wherever the host's name is known."""
        if self._host in EVERY_NETWORK:
            return self._at("::1" if self._host == "::" else "127.0.0.1")
        return self._at(self._host)

    @property
    def addresses_elsewhere(self) -> list[str]:
        """For clients on other machines, as far as they are known."""
        return [self._at(host) for host in addresses_elsewhere(self._host)]

    def _at(self, host: str) -> str:
        return f"{self.scheme}://{f'[{host}]' if ':' in host else host}:{self.port}"


@contextlib.asynccontextmanager
async def running_server(
    maker: EngineMaker,
    settings: Settings,
    access: Access,
    tls: ssl.SSLContext | None = None,
    metrics: Metrics | None = None,
    folder: StateFolder | None = None,
) -> AsyncIterator[RunningServer]:
    """A server on the running event loop that takes clients until the block is left; `metrics` are its own if given.

    Then no new ones are taken, answers in progress get `server.drain_s` to end, and every client is told that the
    server goes away. With a `folder`, sessions are saved there, and gone on with.

    Raises:
        ConfigError: the address cannot be listened on, or those of images cannot be allowed.
    """
    server = settings.server
    metrics = metrics or Metrics()
    hub = Hub(maker, settings, timer=metrics.timed, observer=metrics.heard)
    fetcher = ImageFetcher(
        AllowedAddresses.from_settings(server), most_bytes=server.message_bytes, patience_s=server.header_timeout_s
    )
    decoder = PictureDecoder(maker.frame_size, server.frame_pixels, fetcher.fetch)
    keeper = None if folder is None else SessionKeeper(folder, server.state_every_s, metrics.kept)
    channels = Channels(hub, decoder, keeper=keeper)
    hub.retry_after_s = channels.retry_after_s
    doorkeeper = Doorkeeper(lambda: _protocol(runner), server.connections, server.header_timeout_s)
    metrics.watch(hub, lambda: doorkeeper.connections, folder)
    app = WebServer(hub, channels, decoder, access, metrics, doorkeeper.let_in).application()
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=_SHUTDOWN_S, lingering_time=0.0)
    patience_s = 0.0
    try:
        await runner.setup()
        listening = await _listen(doorkeeper, server.host, server.port, tls, server.header_timeout_s)
        try:
            port = listening.sockets[0].getsockname()[1]
            yield RunningServer(hub, channels, server.host, port, "http" if tls is None else "https")
            patience_s = server.drain_s
        finally:
            listening.close()
    finally:
        _LOG.info("draining", extra=fields(sessions=len(hub.sessions), patience_s=patience_s))
        fetcher.stop()  # sessions take in no more images, and would wait for these
        await channels.drain(patience_s)
        if keeper is not None:
            await keeper.close()
        await runner.cleanup()
        await fetcher.close()
        await asyncio.get_running_loop().run_in_executor(None, decoder.close)
        _LOG.info("stopped", extra=fields(sessions_opened=hub.opened))


async def _listen(
    keeper: Doorkeeper, host: str, port: int, tls: ssl.SSLContext | None, patience_s: float
) -> asyncio.Server:
    try:
        make = asyncio.get_running_loop().create_server
        if tls is None:
            return await make(keeper, host, port, backlog=128)
        return await make(keeper, host, port, backlog=128, ssl=tls, ssl_handshake_timeout=patience_s)
    except OSError as error:
        raise cannot_listen(host, port, error.strerror or str(error)) from error


def _protocol(runner: web.AppRunner) -> asyncio.BaseProtocol:
    assert runner.server is not None, "set up before anything listens"
    return runner.server()
