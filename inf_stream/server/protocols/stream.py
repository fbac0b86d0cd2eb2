"""`/v1/stream`: one binary image per message, JSON control messages beside them; exactly one outcome for each frame.

The README shows all messages. A frame's number counts the binary messages of the session, from 0.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from inf_stream.base.clock import seconds
from inf_stream.base.errors import InfStreamError
from inf_stream.base.events import AnswerDelta, AnswerFinished, AnswerStarted, Warned
from inf_stream.base.state import State
from inf_stream.server.protocols.adapter import Message, Reply, Session, TakeFrames
from inf_stream.server.protocols.answers import evidence_objects
from inf_stream.server.protocols.limits import ClientLimits
from inf_stream.server.protocols.messages import (
    MessageError,
    as_count,
    as_flag,
    as_number,
    as_text,
    parse_object,
    required,
)
from inf_stream.server.protocols.watches import Alert, Watchman, parse_watch
from inf_stream.server.sessions.engines import SessionOptions
from inf_stream.server.sessions.live_session import FrameSettled, SessionEvent

_ID_CHARACTERS = 128
_LONGEST_MS = 1e15
_HIGHEST_BUDGET = 1 << 40


class StreamAdapter:
    """One client of `/v1/stream` (`inf_stream.server.protocols.adapter.Adapter`).

    Args:
        session: of this client alone.
        limits: of the server.
        watchman: of the session.
        handle: with which the client can come back.
    """

    def __init__(self, session: Session, limits: ClientLimits, watchman: Watchman, handle: str):
        self._session, self._limits, self._watchman, self._handle = session, limits, watchman, handle
        self._client_ids: dict[str, str] = {}
        self._next_timestamp_ms: float | None = None

    def opened(self) -> Sequence[Reply]:
        """Who answers, and within which limits."""
        limits = self._limits
        return [
            {
                "type": "hello",
                "session": self._session.id,
                "handle": self._handle,
                "model": limits.model,
                "sees": limits.sees,
                "next_frame": self._session.frames_received,
                "lost_s": round(self._session.lost_s, 3),
                "limits": {
                    "budget_tokens": limits.budget_tokens,
                    "answer_tokens": limits.answer_tokens,
                    "text_characters": limits.text_characters,
                    "message_bytes": limits.message_bytes,
                    "watches": limits.watches.most,
                },
            }
        ]

    def resumed(self) -> Sequence[Reply]:
        """The same again."""
        return self.opened()

    def received(self, data: str | bytes) -> Sequence[Reply]:
        """A frame, or a control message."""
        if isinstance(data, bytes):
            timestamp_ms, self._next_timestamp_ms = self._next_timestamp_ms, None
            return [TakeFrames((data,), (timestamp_ms,), None)]
        try:
            message = parse_object(data)
            kind = required(message, "type")
            handle = _ON_MESSAGE.get(kind) if isinstance(kind, str) else None
            if handle is None:
                known = ", ".join(sorted(_ON_MESSAGE))
                raise MessageError(f"message type '{str(kind)[:80]}' is unknown; known: {known}", param="type")
            return handle(self, message)
        except MessageError as error:
            return [_error(str(error), error.code, error.param)]
        except InfStreamError as error:
            return [_error(str(error), "invalid_request", None)]

    def frames_taken(self, tag: Any, numbers: Sequence[int]) -> Sequence[Reply]:
        """Its outcome follows."""
        return []

    def frames_refused(self, tag: Any, error: MessageError) -> Sequence[Reply]:
        """Its outcome was told, with the code of the error."""
        return []

    def emitted(self, event: SessionEvent) -> Sequence[Reply]:
        """What came out of the session."""
        match event:
            case FrameSettled(number, at_ns, outcome, reason):
                told: Message = {"type": "frame", "number": number, "at_s": seconds(at_ns), "outcome": outcome}
                return [told if reason is None else told | {"reason": reason}]
            case Warned(message, at_ns):
                return [{"type": "warning", "message": message, "at_s": seconds(at_ns)}]
            case AnswerStarted(question, warning):
                started: Message = {"type": "answer.started", "id": self._client_ids[question.id]}
                return [started if warning is None else started | {"warning": warning}]
            case AnswerDelta(question_id, text):
                return [{"type": "answer.delta", "id": self._client_ids[question_id], "text": text}]
            case AnswerFinished(question):
                return [{"type": "answer.finished", "id": self._client_ids.pop(question.id), **_answer(event)}]
        return []

    def alerted(self, alert: Alert) -> Sequence[Reply]:
        """A watch has something to say."""
        told = {
            "type": "alert",
            "metadata": alert.metadata(),
            "text": alert.text,
            "at_s": seconds(alert.at_ns),
            "evidence": evidence_objects(alert.evidence),
        }
        return [told]

    def may_return(self, *, lost: bool) -> bool:
        """A goodbye is meant."""
        return lost

    def ending(self, left_s: float) -> Sequence[Reply]:
        """Nothing: the close code says it."""
        return []

    def numbered(self, message: Message, number: int) -> Message:
        """With `seq`, which tells the order."""
        return {"seq": number, **message}

    # ---- kept on disk ------------------------------------------------------------------------------

    def state(self) -> State:
        """The client's ids of its open questions."""
        return State(facts={"client_ids": dict(self._client_ids)})

    def restore(self, state: State) -> None:
        """Go on where another was.

        Raises:
            StateError: it is not what `state` gives.
        """
        self._client_ids = dict(state.fact("client_ids", dict))

    # ---- control messages --------------------------------------------------------------------------

    def _configure(self, message: Mapping[str, Any]) -> Sequence[Reply]:
        old = self._session.options
        instructions, budget = old.instructions, old.budget_tokens
        if message.get("instructions") is not None:
            instructions = as_text(message["instructions"], "instructions", most=self._limits.text_characters)
        if message.get("budget_tokens") is not None:
            budget = as_count(message["budget_tokens"], "budget_tokens", 1, _HIGHEST_BUDGET)
        self._session.configure(SessionOptions(instructions, budget))
        told = {"instructions": instructions or self._limits.instructions}
        return [{"type": "configured", **told, "budget_tokens": budget or self._limits.budget_tokens}]

    def _frame(self, message: Mapping[str, Any]) -> Sequence[Reply]:
        stamp = required(message, "timestamp_ms")
        self._next_timestamp_ms = as_number(stamp, "timestamp_ms", 0.0, _LONGEST_MS)
        return []

    def _ask(self, message: Mapping[str, Any]) -> Sequence[Reply]:
        text = as_text(required(message, "text"), "text", most=self._limits.text_characters)
        client_id = as_text(required(message, "id"), "id", most=_ID_CHARACTERS)
        if client_id in self._client_ids.values():
            raise MessageError(f"id '{client_id}' is in use until its answer is finished", param="id")
        tokens = message.get("max_tokens")
        if tokens is not None:
            tokens = as_count(tokens, "max_tokens", 1, self._limits.answer_tokens)
        aside = as_flag(message.get("aside", False), "aside")
        in_order = as_flag(message.get("in_order", False), "in_order")
        question = self._session.new_question(text, max_tokens=tokens, aside=aside)
        self._session.ask(question, in_order=in_order)
        self._client_ids[question.id] = client_id
        return []

    def _cancel(self, message: Mapping[str, Any]) -> Sequence[Reply]:
        wanted = as_text(required(message, "id"), "id", most=_ID_CHARACTERS)
        for question_id, client_id in self._client_ids.items():
            if client_id == wanted:
                self._session.cancel(question_id)
                return []
        raise MessageError(f"no answer '{wanted}' is waiting or running", code="not_active", param="id")

    def _watch(self, message: Mapping[str, Any]) -> Sequence[Reply]:
        watch = parse_watch(dict(message), "watch", self._watchman.limits)
        self._watchman.set(watch)
        return [{"type": "watching", **watch.as_object()}]

    def _unwatch(self, message: Mapping[str, Any]) -> Sequence[Reply]:
        watch_id = as_text(required(message, "id"), "id", most=_ID_CHARACTERS)
        self._watchman.unset(watch_id)
        return [{"type": "unwatched", "id": watch_id}]

    def _stats(self, _message: Mapping[str, Any]) -> Sequence[Reply]:
        return [{"type": "stats", **self._session.stats(), "memory": self._session.memory}]


def _answer(event: AnswerFinished) -> dict[str, Any]:
    return {
        "text": event.text,
        "reason": event.reason.value,
        "tokens": event.tokens,
        "ttft_s": event.ttft_s,
        "at_s": seconds(event.question.at_ns),
        "evidence": evidence_objects(event.evidence),
        "stats": event.stats,
    } | ({} if event.warning is None else {"warning": event.warning})


def _error(message: str, code: str, param: str | None) -> Message:
    return {"type": "error", "code": code, "message": message, "param": param}


_S = StreamAdapter
_ON_MESSAGE: Mapping[str, Callable[[StreamAdapter, Mapping[str, Any]], Sequence[Reply]]] = {
    "configure": _S._configure,
    "frame": _S._frame,
    "ask": _S._ask,
    "cancel": _S._cancel,
    "watch": _S._watch,
    "unwatch": _S._unwatch,
    "stats": _S._stats,
}
