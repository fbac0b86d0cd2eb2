"""One client of a load run: a camera at its pace, questions at theirs, everything timed and checked where it arrives.

It is the official client of OpenAI's Realtime interface. Questions come on a schedule of their own, whether those
before are answered or not (as asides, of which several may wait): a client that waited for its answers would ask a slow
server less, and find it fast. Each is put off by a random part of a frame's interval: it waits for the frame before it.
"""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from openai import AsyncOpenAI, OpenAIError
from openai.resources.realtime.realtime import AsyncRealtimeConnection
from openai.types.realtime import RealtimeServerEvent
from pydantic import TypeAdapter, ValidationError
from websockets.exceptions import ConnectionClosed, InvalidHandshake

SCHEMA: TypeAdapter[Any] = TypeAdapter(RealtimeServerEvent)
QUESTIONS = ("What do you see?", "Is there a woman now?", "Is there a dog now?", "What is happening?")
MOST_EXAMPLES = 8
"""Protocol errors that are quoted; all are counted."""
LOOK_S = 0.2


@dataclass(frozen=True)
class Plan:
    """What each client does.

    Attributes:
        seconds: of frames and questions.
        every_s: between two questions.
        fps: frames a second.
        answer_tokens: of an answer, at most.
        patience_s: for the answers that are open at the end.
    """

    seconds: float
    every_s: float = 10.0
    fps: float = 1.0
    answer_tokens: int = 32
    patience_s: float = 60.0


@dataclass
class Heard:
    """What one client, or all of them, sent and heard.

    Attributes:
        ttft_s: seconds from each question's sending to the first word of its answer, measured here.
        dropped: frames by the server's reason.
        errors: what went wrong, by its code.
        protocol_errors: events that are not as the protocol has them; `examples` quotes some.
        lag_s: by how much this client was late with anything, at most.
    """

    ttft_s: list[float] = field(default_factory=list)
    questions: int = 0
    frames: int = 0
    accepted: int = 0
    events: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    protocol_errors: int = 0
    examples: list[str] = field(default_factory=list)
    lag_s: float = 0.0

    @classmethod
    def of_all(cls, parts: Sequence["Heard"]) -> "Heard":
        """What several clients heard together."""
        together = cls()
        for part in parts:
            together.ttft_s += part.ttft_s
            for name in ("questions", "frames", "accepted", "events", "protocol_errors"):
                setattr(together, name, getattr(together, name) + getattr(part, name))
            together.dropped += part.dropped
            together.errors += part.errors
            together.examples = (together.examples + part.examples)[:MOST_EXAMPLES]
            together.lag_s = max(together.lag_s, part.lag_s)
        return together


class LoadClient:
    """A client from its connection to its end.

    Args:
        images: data URIs, sent in turn from any of them on.
        plan: what to do.
        rng: shifts its schedules against those of other clients.
    """

    def __init__(self, images: Sequence[str], plan: Plan, rng: np.random.Generator):
        self._images, self._plan = images, plan
        self._frames_rng, self._questions_rng = rng.spawn(2)
        self.heard = Heard()
        self._sent_s: dict[str, float] = {}
        self._waiting: dict[str, float] = {}
        self._event_number = 0
        self._is_idle = asyncio.Event()

    async def run(self, url: str, key: str) -> Heard:
        """Everything; what goes wrong is counted, and raises nothing."""
        try:
            async with (
                AsyncOpenAI(api_key=key, base_url=f"{url}/v1", max_retries=0) as client,
                client.realtime.connect(model="inf-stream") as connection,
            ):
                await self._talk(connection)
        except (OSError, InvalidHandshake, OpenAIError) as error:
            self.heard.errors[type(error).__name__] += 1
        except ConnectionClosed as closed:
            self.heard.errors[f"closed {closed.rcvd.code if closed.rcvd else 1006}"] += 1
        self.heard.errors["unanswered"] += len(self._sent_s) + len(self._waiting)
        self.heard.errors += Counter()  # without those that are 0
        return self.heard

    async def _talk(self, connection: AsyncRealtimeConnection) -> None:
        listening = asyncio.create_task(self._listen(connection))
        saying = asyncio.gather(self._stream(connection), self._question(connection))
        try:
            await asyncio.wait({listening, saying}, return_when=asyncio.FIRST_COMPLETED)
            if listening.done():
                listening.result()
            await saying
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._settled(connection), self._plan.patience_s)
        finally:
            for task in (listening, saying):
                task.cancel()
            await asyncio.gather(listening, saying, return_exceptions=True)

    async def _stream(self, connection: AsyncRealtimeConnection) -> None:
        first = int(self._frames_rng.integers(len(self._images)))
        async for number in self._ticks(self._plan.fps, self._frames_rng):
            image = self._images[(first + number) % len(self._images)]
            item: Any = {"type": "message", "role": "user", "content": [{"type": "input_image", "image_url": image}]}
            await connection.conversation.item.create(item=item)
            self.heard.frames += 1

    async def _question(self, connection: AsyncRealtimeConnection) -> None:
        async for number in self._ticks(1 / self._plan.every_s, self._questions_rng, 1 / self._plan.fps):
            text = QUESTIONS[number % len(QUESTIONS)]
            item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}
            asked: Any = {"conversation": "none", "input": [item], "metadata": {"number": str(number)}}
            self.heard.questions += 1
            self._sent_s[str(number)] = time.perf_counter()
            await connection.response.create(response=asked | {"max_output_tokens": self._plan.answer_tokens})

    async def _ticks(self, rate: float, rng: np.random.Generator, jitter_s: float = 0.0) -> AsyncIterator[int]:
        """0, 1, ... at `rate` a second while the plan goes on, each put off by at most `jitter_s`; none is left out."""
        began_s, phase, number = time.perf_counter(), float(rng.random()), 0
        while (at_s := (number + phase) / rate + jitter_s * float(rng.random())) < self._plan.seconds:
            await asyncio.sleep(began_s + at_s - time.perf_counter())
            self.heard.lag_s = max(self.heard.lag_s, time.perf_counter() - began_s - at_s)
            yield number
            number += 1

    async def _settled(self, connection: AsyncRealtimeConnection) -> None:
        """Wait until the server has done all it was asked, and its counts are here."""
        while not self._is_idle.is_set():
            await connection.session.update(session={"type": "realtime"})
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._is_idle.wait(), LOOK_S)

    # ---- what is heard -----------------------------------------------------------------------------

    async def _listen(self, connection: AsyncRealtimeConnection) -> None:
        while True:
            data = await connection.recv_bytes()
            self.take_in(data, time.perf_counter())

    def take_in(self, data: bytes, now_s: float) -> None:
        """One event of the server, as it came over the wire at `now_s`."""
        self.heard.events += 1
        try:
            event = SCHEMA.validate_json(data)
        except ValidationError as error:
            self._violated(f"{error.error_count()} faults in {data[:200]!r}")
            return
        self._event_number += 1
        if event.event_id != f"event_{self._event_number}":
            self._violated(f"{event.event_id} follows event_{self._event_number - 1}")
        match event.type:
            case "response.created":
                self._created(event.response)
            case "response.output_text.delta" if event.response_id in self._waiting:
                self.heard.ttft_s.append(now_s - self._waiting.pop(event.response_id))
            case "response.done":
                self._done(event.response)
            case "session.updated":
                self._counted(event.session.inf_stream["stats"])
            case "error":
                self.heard.errors[event.error.code] += 1

    def _created(self, response: Any) -> None:
        sent_s = self._sent_s.pop((response.metadata or {}).get("number", ""), None)
        if sent_s is None:
            self._violated(f"{response.id} was not asked for")
        else:
            self._waiting[response.id] = sent_s

    def _done(self, response: Any) -> None:
        if response.status not in ("completed", "incomplete"):
            self.heard.errors[f"answer {response.status}"] += 1
        if self._waiting.pop(response.id, None) is not None and response.status != "failed":
            self.heard.errors["empty answer"] += 1

    def _counted(self, stats: dict[str, Any]) -> None:
        frames = stats["frames"]
        self.heard.accepted, self.heard.dropped = frames["accepted"], Counter(frames["reasons"])
        if not stats["questions_waiting"] and not frames["waiting"] and not self._sent_s:
            self._is_idle.set()

    def _violated(self, what: str) -> None:
        self.heard.protocol_errors += 1
        self.heard.examples = [*self.heard.examples, what][:MOST_EXAMPLES]
