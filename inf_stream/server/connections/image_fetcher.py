"""Fetches the images whose addresses clients sent instead of them."""

import asyncio
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import aiohttp
from yarl import URL

from inf_stream.server.log import fields
from inf_stream.server.protocols.image_urls import AllowedAddresses
from inf_stream.server.protocols.pictures import PictureError

_LOG = logging.getLogger(__name__)
_PIECE_BYTES = 1 << 16


class ImageFetcher:
    """Fetches from allowed addresses, and from nowhere they may send it on to; on the running event loop.

    Nothing of the server's is sent along: no cookies, no credentials, no proxy's.

    Args:
        allowed: addresses.
        most_bytes: of one message's images together, as if they had come in it.
        patience_s: for them together.
    """

    def __init__(self, allowed: AllowedAddresses, *, most_bytes: int, patience_s: float):
        self._allowed, self._most_bytes, self._patience_s = allowed, most_bytes, patience_s
        self._stopped: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._web: aiohttp.ClientSession | None = None

    async def fetch(self, addresses: Sequence[URL]) -> list[bytes]:
        """The images of one message, one after the other.

        Raises:
            PictureError: one of them cannot be had, or not in time, or they are too large.
        """
        fetching = asyncio.create_task(self._fetch_all(addresses))
        either: set[asyncio.Future[Any]] = {fetching, self._stopped}
        try:
            await asyncio.wait(either, timeout=self._patience_s, return_when=asyncio.FIRST_COMPLETED)
            if fetching.done():
                return fetching.result()
        finally:
            fetching.cancel()
            await asyncio.gather(fetching, return_exceptions=True)
        raise _not_fetched(
            "the server stops" if self._stopped.done() else f"it did not come within {self._patience_s:g} s"
        )

    def stop(self) -> None:
        """Give up what is being fetched, and fetch no more; may be called more than once."""
        if not self._stopped.done():
            self._stopped.set_result(None)

    async def close(self) -> None:
        """Give up its connections."""
        self.stop()
        if self._web is not None:
            await self._web.close()

    async def _fetch_all(self, addresses: Sequence[URL]) -> list[bytes]:
        found: list[bytes] = []
        for address in addresses:
            most = self._most_bytes - sum(map(len, found))
            data = await (self._read(address, most) if address.scheme == "file" else self._get(address, most))
            if len(data) > most:
                raise PictureError(
                    f"the images of one message have more than {self._most_bytes} bytes together; scale them down",
                    code="image_too_large",
                )
            found.append(data)
        return found

    async def _get(self, address: URL, most: int) -> bytes:
        """What a web server answers, and a byte of what is too much."""
        try:
            async with self._client().get(address, allow_redirects=False) as response:
                if response.status != 200:
                    raise _not_fetched(f"its server answered {response.status}; redirects are not followed")
                data = bytearray()
                async for piece in response.content.iter_chunked(_PIECE_BYTES):
                    data += piece
                    if len(data) > most:
                        break
                return bytes(data)
        except (aiohttp.ClientError, OSError) as error:
            _LOG.info("image not fetched", extra=fields(host=address.host, error=str(error)))
            raise _not_fetched("its server cannot be reached, or broke off") from None

    async def _read(self, address: URL, most: int) -> bytes:
        run = asyncio.get_running_loop().run_in_executor
        data = await run(None, self._read_file, address, most)
        if data is None:
            raise _not_fetched("there is no such file that may be read")
        return data

    def _read_file(self, address: URL, most: int) -> bytes | None:
        try:
            path: Path | None = self._allowed.file_of(address)
            if path is not None:
                with path.open("rb") as file:
                    return file.read(most + 1)
        except OSError as error:
            _LOG.info("image not fetched", extra=fields(error=str(error)))
        return None

    def _client(self) -> aiohttp.ClientSession:
        if self._web is None:
            self._web = aiohttp.ClientSession(
                cookie_jar=aiohttp.DummyCookieJar(),
                headers={"Accept": "image/jpeg, image/png, image/webp", "Accept-Encoding": "identity"},
                auto_decompress=False,
            )
        return self._web


def _not_fetched(why: str) -> PictureError:
    return PictureError(f"the image at image_url cannot be fetched: {why}", code="image_not_fetched")
