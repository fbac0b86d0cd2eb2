"""Sessions that outlive the process: snapshots while a stream runs, and going on from one."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from time import monotonic, time
from typing import Any

from inf_stream.app.keeping import Keeping
from inf_stream.base.clock import NS_PER_S, format_clock, nanoseconds
from inf_stream.base.config import Settings, kept_settings
from inf_stream.base.errors import StateError
from inf_stream.base.events import Frame
from inf_stream.base.state import State, read_state, write_state
from inf_stream.engine.engine import Engine
from inf_stream.engine.forwarding import ForwardingEngine
from inf_stream.engine.saved import SavedEngine
from inf_stream.sources import ResumedSource, Source


@dataclass(frozen=True)
class Past:
    """What is known of a session that was restored.

    Attributes:
        path: of its file.
        video: address of its stream, or None for text.
        now_ns: stream time it had reached.
        frames: how many frame numbers were used up.
        saved_s: when it was saved, as `time.time` has it.
    """

    path: Path
    video: str | None
    now_ns: int
    frames: int
    saved_s: float

    def describe(self) -> str:
        """For people."""
        when = datetime.fromtimestamp(self.saved_s, timezone.utc).astimezone()
        return f"resumed '{self.path}' at {format_clock(self.now_ns)}, saved {when:%Y-%m-%d %H:%M:%S}"

    def behind(self, source: Source, address: str, *, loop: bool, now_s: Callable[[], float] = time) -> "Sequel":
        """What comes after it.

        A file goes on where it was left, a live stream as much later as the clock says, and anything else one second
        after what was seen.
        """
        if not source.live and not loop and identity(address) == self.video:
            told = f"'{address}' goes on from {format_clock(self.now_ns)}; nothing of it is lost"
            again = ResumedSource(source, skip_ns=self.now_ns, later_ns=0, first_number=self.frames)
            return Sequel(again, self.now_ns, told)
        lost_ns = max(0, nanoseconds(now_s() - self.saved_s)) if source.live else NS_PER_S
        begin_ns = self.now_ns + lost_ns
        told = f"'{address}' follows from {format_clock(begin_ns)} on"
        if source.live:
            told += f"; {lost_ns / NS_PER_S:.0f} s of it were not seen"
        return Sequel(ResumedSource(source, skip_ns=-1, later_ns=begin_ns, first_number=self.frames), begin_ns, told)


@dataclass(frozen=True)
class Sequel:
    """A stream behind a resumed session, when it begins, and what to tell of it."""

    source: Source
    begin_ns: int
    told: str


@dataclass(frozen=True)
class Beginning:
    """How a run begins: with which past, if any, what comes then, and at which stream time.

    Attributes:
        past: of a resumed session.
        source: what comes.
        begin_ns: from when on.
    """

    past: Past | None
    source: Source
    begin_ns: int


def begin(
    engine: Engine, keeping: Keeping, source: Source, address: str | None, *, loop: bool, note: Callable[[str], None]
) -> Beginning:
    """Take up the session that is to be resumed, if any, and put `source` behind it; `address` of None has no video.

    Raises:
        StateError: as `resume`.
    """
    if keeping.resume is None:
        return Beginning(None, source, 0)
    past = resume(engine, keeping.resume)
    note(past.describe())
    if address is None:
        return Beginning(past, source, past.now_ns)
    sequel = past.behind(source, address, loop=loop)
    note(sequel.told)
    return Beginning(past, sequel.source, sequel.begin_ns)


def identity(video: str | None) -> str | None:
    """What tells a stream from others wherever the program is started: the full path of a file, or an address."""
    return video if video is None or "://" in video or not Path(video).exists() else str(Path(video).resolve())


def resume(engine: Engine, path: Path) -> Past:
    """Restore a session into a fresh engine.

    Raises:
        StateError: the file is damaged, or of another model or other settings.
    """
    state = read_state(path)
    engine.restore(state.part("engine"))
    video = state.facts.get("video")
    return Past(
        path,
        video if isinstance(video, str) else None,
        engine.now_ns,
        state.count("frame_numbers"),
        float(state.fact("saved_s", float)),
    )


class Snapshots(ForwardingEngine):
    """An engine that is saved to a file now and then, between two steps.

    What is saved is copied on the engine's thread and written on another; while one is being written no other is
    begun, so there is one copy at most.

    Args:
        engine: is saved.
        keeping: where to and how often.
        facts: kept beside it.
        warn: told, from any thread, of a snapshot that could not be written.
        clock: gives seconds.
    """

    def __init__(
        self,
        engine: SavedEngine,
        keeping: Keeping,
        facts: dict[str, Any],
        warn: Callable[[str], None],
        clock: Callable[[], float] = monotonic,
    ):
        super().__init__(engine)
        assert keeping.save is not None, "made to save"
        self._whole, self._path, self._facts, self._warn, self._clock = engine, keeping.save, facts, warn, clock
        self._every_s = keeping.every_ns / NS_PER_S
        self._due_s = clock() + self._every_s
        self._frame_numbers = int(facts.get("frame_numbers", 0))
        self._writing: threading.Thread | None = None
        self._changed = False

    def ingest_frames(self, frames: Sequence[Frame]) -> None:
        """As the engine's; then a snapshot if one is due."""
        super().ingest_frames(frames)
        self._frame_numbers = max(self._frame_numbers, frames[-1].number + 1)
        self._save_if_due()

    def ingest_text(self, text: str, at_ns: int) -> None:
        """As the engine's; then a snapshot if one is due."""
        super().ingest_text(text, at_ns)
        self._save_if_due()

    def end_answer(self) -> int:
        """As the engine's; then a snapshot if one is due."""
        tokens = super().end_answer()
        self._save_if_due()
        return tokens

    def close(self) -> None:
        """Save what there is now, if anything came. An engine that broke in an answer leaves the latest snapshot.

        Raises:
            StateError: it cannot be written.
        """
        if self._writing is not None:
            self._writing.join()
        if self._changed and not self._whole.is_answering:
            write_state(self._state().on_cpu(), self._path)

    def _save_if_due(self) -> None:
        self._changed = True
        if self._clock() < self._due_s or (self._writing is not None and self._writing.is_alive()):
            return
        self._writing = threading.Thread(target=self._write, args=(self._state().on_cpu(),), name="inf-stream-saving")
        self._writing.start()
        self._due_s = self._clock() + self._every_s

    def _write(self, state: State) -> None:
        try:
            write_state(state, self._path)
        except StateError as error:
            self._warn(f"warning: {error}; the session goes on")

    def _state(self) -> State:
        facts = self._facts | {"frame_numbers": self._frame_numbers, "saved_s": time()}
        return State.of({"engine": self._whole.state()}, **facts)


@contextmanager
def kept(
    engine: Engine,
    keeping: Keeping,
    past: Past | None,
    settings: Settings,
    video: str | None,
    warn: Callable[[str], None],
) -> Iterator[Engine | Snapshots]:
    """The engine to run a session on: one that is saved while it runs and at the end, if that is asked for.

    Raises:
        StateError: at the end: the session cannot be written.
    """
    if keeping.save is None:
        yield engine
        return
    facts = {
        "settings": kept_settings(settings),
        "video": identity(video),
        "frame_numbers": past.frames if past is not None else 0,
    }
    snapshots = Snapshots(engine, keeping, facts, warn)
    try:
        yield snapshots
    finally:
        snapshots.close()
