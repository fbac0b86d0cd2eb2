"""The server of a load run: started as a user starts it, watched from outside, stopped by SIGTERM."""

import asyncio
import contextlib
import re
import signal
import sys
from collections import deque
from collections.abc import AsyncIterator, Sequence

import aiohttp
import psutil

READY = re.compile(r" at (https?://\S+?)/ \(a page\)")
START_S, STOP_S, LEAVE_S = 300.0, 60.0, 120.0
LOOK_S = 0.25
SETTLE_S = 3.0
"""From the last client's leaving to the look at the memory that is left."""


class ServerError(Exception):
    """The server did not start, or ended by itself."""


class Server:
    """A running `inf-stream serve`.

    Attributes:
        url: of it.
        log_errors: lines of its log that tell of an error.
    """

    def __init__(self, process: asyncio.subprocess.Process):
        self.url, self.log_errors = "", 0
        self._process = process
        self._said: deque[str] = deque(maxlen=20)

    def memory_mib(self) -> float:
        """Resident memory.

        Raises:
            ServerError: it has ended.
        """
        try:
            return float(psutil.Process(self._process.pid).memory_info().rss) / 2**20
        except psutil.Error as error:
            raise ServerError(f"the server has ended: {self._last_words()}") from error

    async def empty(self) -> None:
        """Wait until no session is left, and a little longer."""
        async with aiohttp.ClientSession() as http:
            for _ in range(int(LEAVE_S / LOOK_S)):
                async with http.get(f"{self.url}/v1/sessions") as response:
                    if not (await response.json())["data"]:
                        await asyncio.sleep(SETTLE_S)
                        return
                await asyncio.sleep(LOOK_S)
        raise ServerError(f"sessions are left {LEAVE_S:.0f} s after their clients")

    async def started(self) -> None:
        """Wait until it listens."""
        assert self._process.stderr is not None, "piped"
        async for line in self._process.stderr:
            self._said.append(line.decode(errors="replace").rstrip())
            if found := READY.search(self._said[-1]):
                self.url = found[1]
                return
        raise ServerError(f"the server did not start: {self._last_words()}")

    async def read_log(self) -> None:
        """To its end, counting errors."""
        assert self._process.stderr is not None, "piped"
        async for line in self._process.stderr:
            self._said.append(line.decode(errors="replace").rstrip())
            self.log_errors += "level=ERROR" in self._said[-1]

    def _last_words(self) -> str:
        return " | ".join(self._said) or "it said nothing"


@contextlib.asynccontextmanager
async def running_server(flags: Sequence[str]) -> AsyncIterator[Server]:
    """`inf-stream serve` with these flags on a free port of this machine.

    Raises:
        ServerError: it does not start.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "inf_stream", "serve", "--port", "0", *flags,
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    server = Server(process)
    reading: asyncio.Task[None] | None = None
    try:
        try:
            await asyncio.wait_for(server.started(), START_S)
        except asyncio.TimeoutError:
            raise ServerError(f"the server does not listen after {START_S:.0f} s") from None
        reading = asyncio.create_task(server.read_log())
        yield server
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(process.wait(), STOP_S)
        except asyncio.TimeoutError:
            process.kill()
            await process.wait()
        if reading is not None:
            await reading
