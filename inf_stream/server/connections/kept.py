"""What of a channel is kept on disk, and how another one goes on with it."""

import time
from dataclasses import dataclass

from inf_stream.base.errors import StateError
from inf_stream.base.state import State
from inf_stream.server.connections.outbox import Outbox
from inf_stream.server.protocols.adapter import DurableAdapter
from inf_stream.server.protocols.messages import MessageError
from inf_stream.server.protocols.watches import Watchman
from inf_stream.server.sessions.engines import SessionOptions
from inf_stream.server.sessions.live_session import LiveSession

LAYOUT = 1
"""Of what is kept; a file of another is refused."""


@dataclass(frozen=True)
class Past:
    """What is known of a saved session before it is gone on with.

    Attributes:
        state: all of it.
        is_whole: whether nothing came after it was saved.
        protocol: that it speaks.
        session_id: that it had.
        options: of its engine.
        later_s: wall time since it was saved.
        questions: ids of those that waited for their answer.
    """

    state: State
    is_whole: bool
    protocol: str
    session_id: str
    options: SessionOptions
    later_s: float
    questions: tuple[str, ...]

    @classmethod
    def of(cls, state: State, *, is_whole: bool) -> "Past":
        """What `Kept.state` gave.

        Raises:
            StateError: it did not give this, or another version of it did.
        """
        if state.facts.get("layout") != LAYOUT:
            raise StateError("the saved session is of another version of the server, or of none; open a new one")
        session = state.part("session")
        options = State(facts=session.fact("options", dict))
        budget = None if options.facts.get("budget_tokens") is None else options.count("budget_tokens")
        return cls(
            state,
            is_whole,
            state.fact("protocol", str),
            session.fact("id", str),
            SessionOptions(options.fact("instructions", str), budget),
            max(0.0, time.time() - state.fact("saved_s", float)),
            tuple(state.fact("questions", list)),
        )

    @property
    def lost_s(self) -> float:
        """Seconds of the stream of which nothing is left: none, or all since it was saved."""
        return 0.0 if self.is_whole else self.later_s


@dataclass(frozen=True)
class Kept:
    """The parts of a channel that are kept.

    Attributes:
        session: with its engine.
        watchman: of its watches.
        adapter: its protocol.
        outbox: what its client was told lately.
        protocol: name of the protocol.
        handle: of its client; not kept.
    """

    session: LiveSession
    watchman: Watchman
    adapter: DurableAdapter
    outbox: Outbox
    protocol: str
    handle: str

    def state(self, engine: State, *, all_sent: bool) -> State:
        """All of them at this moment, with the engine's state at this moment; `all_sent`: no message waits."""
        parts = {
            "engine": engine,
            "session": self.session.state(),
            "watches": self.watchman.state(),
            "adapter": self.adapter.state(),
            "messages": self.outbox.state(self.handle, all_sent=all_sent),
        }
        questions = [one for one in self.session.open_questions if not self.watchman.knows(one)]
        return State.of(parts, layout=LAYOUT, protocol=self.protocol, saved_s=time.time(), questions=questions)

    async def restore(self, past: Past) -> None:
        """Go on where those of the past were; for parts to which nothing has come yet.

        Raises:
            InfStreamError: the past does not fit this server; the parts are of no use then.
        """
        state = past.state
        try:
            engine, session = state.part("engine"), state.part("session")
            await self.session.restore(engine, session, later_s=past.later_s, lost_s=past.lost_s)
            self.watchman.restore(state.part("watches"))
            self.adapter.restore(state.part("adapter"))
            self.outbox.restore(state.part("messages"), self.handle)
        except MessageError as error:
            raise StateError(f"the saved session does not fit this server: {error}") from error
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise StateError("the saved session is not one of this server; open a new one") from error
