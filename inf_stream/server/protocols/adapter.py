"""What every protocol is to the rest of the server: messages and events in, messages out; no socket, no clock."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, runtime_checkable

from inf_stream.base.events import Question
from inf_stream.base.state import State
from inf_stream.server.protocols.messages import MessageError
from inf_stream.server.protocols.pictures import Image
from inf_stream.server.protocols.watches import Alert
from inf_stream.server.sessions.engines import Memory, SessionOptions
from inf_stream.server.sessions.live_session import SessionEvent

Message: TypeAlias = dict[str, Any]
"""Goes to the client as one JSON object."""

NORMAL, GOING_AWAY, INVALID, POLICY, INTERNAL, TRY_LATER = 1000, 1001, 1007, 1008, 1011, 1013
"""Close codes of WebSocket connections (RFC 6455, section 7.4.1; 1013 from its registry)."""


@dataclass(frozen=True, slots=True)
class HangUp:
    """Close the connection with this code and reason."""

    code: int
    reason: str

    @property
    def logged(self) -> str:
        """The reason as far as it is in our own words: what is wrong with a message may quote it."""
        return "a message was refused" if self.code == INVALID else self.reason


@dataclass(frozen=True, slots=True)
class TakeFrames:
    """Fetch and decode these images, all or none, and queue them; and tell the adapter by `tag` how that went.

    `timestamps_ms` has one stream time for each image, or None where the time of arrival counts.
    """

    images: tuple[Image, ...]
    timestamps_ms: tuple[float | None, ...]
    tag: Any


Reply: TypeAlias = Message | TakeFrames | HangUp
"""What an adapter wants. With a `HangUp` the session ends, too, unless its client may return."""


@runtime_checkable
class Session(Protocol):
    """What a protocol may do with its session (`inf_stream.server.sessions.live_session.LiveSession`)."""

    id: str

    @property
    def has_begun(self) -> bool:
        """Whether something was taken in, so that the options are settled."""
        ...

    @property
    def options(self) -> SessionOptions:
        """As they are now."""
        ...

    def configure(self, options: SessionOptions) -> None:
        """Change them."""
        ...

    def new_question(self, text: str, *, max_tokens: int | None = None, aside: bool = False) -> Question:
        """A question with an id of its own."""
        ...

    def ask(self, question: Question, *, in_order: bool, patient: bool = False) -> None:
        """Queue a question."""
        ...

    def cancel(self, question_id: str) -> None:
        """Want no more of an answer."""
        ...

    def stats(self) -> dict[str, Any]:
        """Counts and sizes."""
        ...

    @property
    def frames_received(self) -> int:
        """Frames that were numbered, and so the number of the next one."""
        ...

    @property
    def lost_s(self) -> float:
        """Seconds of the stream that came and were lost when the server ended without a word, all in all."""
        ...

    @property
    def memory(self) -> Memory | None:
        """Which seconds of the stream are kept; None before the first frame."""
        ...


@runtime_checkable
class Adapter(Protocol):
    """One client's protocol on one session. Called from one thread."""

    def may_return(self, *, lost: bool) -> bool:
        """Whether a client whose connection is gone may come back: `lost`, or after a goodbye or a `HangUp`."""
        ...

    def opened(self) -> Sequence[Reply]:
        """What the client is told first."""
        ...

    def resumed(self) -> Sequence[Reply]:
        """What a client is told that comes back, before what it missed."""
        ...

    def received(self, data: str | bytes) -> Sequence[Reply]:
        """Take in a message of the client; raises nothing."""
        ...

    def frames_taken(self, tag: Any, numbers: Sequence[int]) -> Sequence[Reply]:
        """The frames of a `TakeFrames` are queued under these numbers; each will have its outcome."""
        ...

    def frames_refused(self, tag: Any, error: MessageError) -> Sequence[Reply]:
        """None of the frames of a `TakeFrames` can be taken."""
        ...

    def emitted(self, event: SessionEvent) -> Sequence[Reply]:
        """Something came out of the session that is no answer to a watch."""
        ...

    def alerted(self, alert: Alert) -> Sequence[Reply]:
        """A watch has something to say."""
        ...

    def ending(self, left_s: float) -> Sequence[Reply]:
        """The session will be ended in so many seconds, or at once if nothing is left to do."""
        ...

    def numbered(self, message: Message, number: int) -> Message:
        """The message with its number in the order of all messages of the session."""
        ...


@runtime_checkable
class DurableAdapter(Protocol):
    """What an `Adapter` must be able to do besides for its sessions to outlive the server; of others, none is kept.

    The session, its watches and the messages that were sent are kept by others. The client's handle must not be in it.
    """

    def state(self) -> State:
        """What the protocol must know to go on, the questions that wait among it; shares nothing that changes later."""
        ...

    def restore(self, state: State) -> None:
        """Go on where another adapter of this protocol was; for one that nothing was asked of yet.

        Each question that waited then comes to its end next, as an `AnswerFinished` that failed.

        Raises:
            StateError: it is not what `state` gives. (A KeyError, TypeError or ValueError is taken as the same.)
        """
        ...
