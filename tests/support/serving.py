"""Servers for tests: engines of plain lists behind a hub, and pictures as clients send them."""

import asyncio
import dataclasses
import threading
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, ClassVar

import cv2
import numpy as np
from support.session_engine import ListEngine

from inf_stream.base.config import ServerSettings, Settings, SourceSettings
from inf_stream.base.errors import BudgetError
from inf_stream.engine.saved import SavedEngine
from inf_stream.models.weights.placement import CudaFacts
from inf_stream.server.sessions.engines import SessionOptions


class GatedEngine(ListEngine):
    """Runs on while its gate is open; a closed one stops it before its next step."""

    gate: threading.Event

    def _called(self, name: str) -> None:
        assert self.gate.wait(20), "the gate was forgotten"
        super()._called(name)


@dataclass
class ListMaker:
    """Makes engines of lists (`EngineMaker`), and remembers them; `prepare` may change each."""

    name: str = "lists"
    sees: bool = True
    frame_size: Callable[[int, int], tuple[int, int]] | None = None
    instructions: str = "be brief"
    budget_tokens: int = 1000
    characters_per_step: int = 10
    session_bytes: int = 100
    free: int = 100_000
    gpu_now: CudaFacts | None = None
    prepare: Callable[[ListEngine], None] = lambda _engine: None
    made: list[ListEngine] = field(default_factory=list)
    options: list[SessionOptions] = field(default_factory=list)
    gate: threading.Event = field(default_factory=threading.Event)
    engine: ClassVar[type[GatedEngine]] = GatedEngine

    def __post_init__(self) -> None:
        self.gate.set()

    def free_bytes(self) -> int:
        return self.free

    def gpu(self) -> CudaFacts | None:
        return self.gpu_now

    def check(self, options: SessionOptions) -> None:
        if options.budget_tokens is not None and not 16 <= options.budget_tokens <= self.budget_tokens:
            raise BudgetError(f"budget of {options.budget_tokens} tokens; 16 to {self.budget_tokens} are allowed")

    def make(self, options: SessionOptions) -> SavedEngine:
        engine = self.engine()
        engine.gate = self.gate
        self.prepare(engine)
        self.made.append(engine)
        self.options.append(options)
        return engine


def server_settings(*, queue_frames: int = 8, queue_questions: int = 16, **changes: Any) -> Settings:
    source = SourceSettings(queue_frames=queue_frames, queue_questions=queue_questions)
    server = dataclasses.replace(ServerSettings(port=0, frames_per_second=1000.0), **changes)
    return Settings(source=source, server=server)


def picture(kind: str = ".jpg", width: int = 16, height: int = 12, grey: int = 90) -> bytes:
    """An image file."""
    done, data = cv2.imencode(kind, np.full((height, width, 3), grey, dtype=np.uint8))
    assert done
    return bytes(data)


def run_clean(main: Coroutine[Any, Any, None], limit_s: float = 60.0) -> None:
    """Run on a real loop; a task left over fails, and so does what takes for ever."""

    async def checked() -> None:
        await asyncio.wait_for(main, limit_s)
        left = asyncio.all_tasks() - {asyncio.current_task()}
        assert not left, f"no task is left over: {left}"

    asyncio.run(checked())
