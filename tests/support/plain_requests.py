"""Plain requests to a server of this process."""

from typing import Any

import aiohttp

from inf_stream.server.running import RunningServer


async def get(server: RunningServer, path: str, method: str = "GET", **more: Any) -> tuple[int, str, dict[str, str]]:
    """Status, text and headers of the answer; `more` as aiohttp takes it."""
    async with (
        aiohttp.ClientSession() as http,
        http.request(method, server.address + path, **more) as response,
    ):
        return response.status, await response.text(), dict(response.headers)
