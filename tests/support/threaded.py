"""A whole server in a thread of its own, for clients that run as programs do; its answers are what a test says."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from support.realtime_clients import serving
from support.serving import ListMaker
from support.session_engine import ListEngine

from inf_stream.base.events import FinishReason, Question
from inf_stream.engine.protocol import AnswerStep
from inf_stream.server.running import RunningServer
from inf_stream.server.sessions.engines import SessionOptions

Say = Callable[["SayingEngine", str], str]
"""From an engine and a question's text to the answer's."""


@dataclass
class SayingEngine(ListEngine):
    """Answers what it is told to, word by word, and remembers all questions."""

    say: Say = lambda _engine, _question: "Yes."
    asked: list[Question] = field(default_factory=list)
    left: list[str] = field(default_factory=list)

    def begin_answer(self, question: Question) -> None:
        self.asked.append(question)
        first, *rest = self.say(self, question.text).split(" ")
        super().begin_answer(question)
        self.left = [first, *(f" {word}" for word in rest)]

    def step_answer(self) -> AnswerStep:
        assert self.said is not None, "an answer is open"
        self._called("step")
        word = self.left.pop(0)
        self.said.append(word)
        return AnswerStep(word, None if self.left else FinishReason.STOP)

    @property
    def frames(self) -> int:
        """Taken in so far."""
        return sum(len(memory.split()) - 1 for memory in self.memory if memory.startswith("frames"))


@dataclass
class SayingMaker(ListMaker):
    """Makes them, all with the same things to say."""

    say: Say = lambda _engine, _question: "Yes."
    engines: list[SayingEngine] = field(default_factory=list)

    def make(self, options: SessionOptions) -> SayingEngine:
        self.engines.append(SayingEngine(frames_per_step=1, say=self.say))
        return self.engines[-1]

    @property
    def asked(self) -> list[Question]:
        """Of all engines."""
        return [question for engine in self.engines for question in engine.asked]


class ThreadedServer:
    """A running server and its loop."""

    def __init__(self, server: RunningServer, loop: asyncio.AbstractEventLoop):
        self.server, self._loop = server, loop

    @property
    def address(self) -> str:
        return self.server.address

    def break_connections(self) -> None:
        """Have all be lost without a word, as when a network breaks; from any thread."""
        self._loop.call_soon_threadsafe(self._break)

    def _break(self) -> None:
        for channel in self.server.channels:
            connection: Any = channel._connection
            if connection is not None:
                connection._transport.abort()


@contextmanager
def threaded_server(maker: ListMaker, keys: tuple[str, ...] = (), **changes: Any) -> Iterator[ThreadedServer]:
    """A server on loopback; `changes` are settings of `[server]`."""
    loop, started, found = asyncio.new_event_loop(), threading.Event(), list[ThreadedServer]()
    ending = asyncio.Event()

    async def serve() -> None:
        async with serving(maker, keys, **changes) as server:
            found.append(ThreadedServer(server, loop))
            started.set()
            await ending.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    assert started.wait(20)
    try:
        yield found[0]
    finally:
        loop.call_soon_threadsafe(ending.set)
        thread.join(20)
        loop.close()
