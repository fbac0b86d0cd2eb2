"""The Gemini Live protocol (`BidiGenerateContent`), text out: frames as `video`, questions as turns or text.

Client messages come in by `received`, and go through the table `_ON_MESSAGE` at the end of this module; what the
session emits comes in by `emitted`. Both give what the client is told. The protocol has no message for errors: who
errs is hung up on, with a code and a reason. See the README for what is mapped how.
"""

import contextlib
import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from inf_stream.base.errors import InfStreamError, SessionError
from inf_stream.base.events import AnswerDelta, AnswerFinished, AnswerStarted, FinishReason, Question, Warned
from inf_stream.base.state import State
from inf_stream.server.protocols.adapter import (
    INTERNAL,
    INVALID,
    TRY_LATER,
    HangUp,
    Message,
    Reply,
    Session,
    TakeFrames,
)
from inf_stream.server.protocols.answers import BROKEN, REFUSED
from inf_stream.server.protocols.gemini_content import Said, get, get_object
from inf_stream.server.protocols.gemini_setup import HANDLE_CHARACTERS, GeminiConfig, watches_of
from inf_stream.server.protocols.gemini_turn import completed, interrupted, loss, piece
from inf_stream.server.protocols.limits import ClientLimits
from inf_stream.server.protocols.messages import MessageError, as_flag, as_object, as_text, parse_object
from inf_stream.server.protocols.watches import Alert, Watch, Watchman
from inf_stream.server.sessions.live_session import SessionEvent

_ACKNOWLEDGED_EVERY = 64
"""A client that keeps its messages until they count is told so often which do."""
_HANDLE = re.compile(r"([\w-]+)\.(\d{1,18})", re.ASCII)


def read_first(data: str | bytes) -> tuple[str, int] | None:
    """What the first message of a client says of a session to go on with: its handle, and the last message seen.

    Raises:
        MessageError: it is no setup.
        SessionError: its handle was not given out here.
    """
    kind, setup = _parse(data)
    if kind != "setup":
        raise MessageError(f"the first message is '{kind}'; it must be the setup")
    resumption = get_object(setup, "sessionResumption", "setup")
    handle = as_text(resumption.get("handle") or "", "sessionResumption.handle", most=HANDLE_CHARACTERS)
    if not handle:
        return None
    found = _HANDLE.fullmatch(handle)
    if found is None:
        raise SessionError("no session has this handle; use the latest newHandle, or leave it out")
    return found[1], int(found[2])


@dataclass
class _Turn:
    """An answer that is wanted, and the texts that ask for it."""

    texts: list[str]
    has_started: bool = False
    is_cancelled: bool = False


class GeminiAdapter:
    """One client of the Gemini Live protocol (`inf_stream.server.protocols.adapter.Adapter`).

    Texts gather until an answer is wanted, and are then the question. Frames go into the stream as they come. What the
    client says ends a running answer; each question has exactly one `turnComplete`. A handle holds the number of the
    message that brought it: what came after that is told again to a client that comes back with it.

    Args:
        session: of this client alone.
        limits: of the server.
        watchman: of the session.
        handle: with which the client can come back.
    """

    def __init__(self, session: Session, limits: ClientLimits, watchman: Watchman, handle: str):
        self._session, self._limits, self._watchman, self._handle = session, limits, watchman, handle
        self._config = GeminiConfig()
        self._is_set_up, self._may_set_up = False, True
        self._unasked: list[str] = []
        self._turns: dict[str, _Turn] = {}
        self._is_active = False
        self._consumed = self._acknowledged = 0
        self._failure = ""
        self._late_instructions = ""

    # ---- in ----------------------------------------------------------------------------------------

    def opened(self) -> Sequence[Reply]:
        """Nothing: the client speaks first."""
        return []

    def resumed(self) -> Sequence[Reply]:
        """What answers the setup, which must come before anything else."""
        self._may_set_up, self._is_active = True, False
        lost_s = self._session.lost_s
        return [*self._setup_complete(), *([loss(lost_s)] if lost_s else [])]

    def received(self, data: str | bytes) -> Sequence[Reply]:
        """One message of the client."""
        try:
            kind, given = _parse(data)
            if kind != "setup":
                if not self._is_set_up:
                    raise MessageError(f"'{kind}' came before the setup")
                self._consumed += 1
            return [*_ON_MESSAGE[kind](self, given), *self._acknowledge()]
        except InfStreamError as error:
            return [HangUp(INVALID, str(error))]

    def frames_taken(self, tag: Said, numbers: Sequence[int]) -> Sequence[Reply]:
        """What came with them can be asked."""
        return self._gather(tag)

    def frames_refused(self, tag: Said, error: MessageError) -> Sequence[Reply]:
        """A message with frames is refused as a whole."""
        return [HangUp(INVALID, str(error))]

    def emitted(self, event: SessionEvent) -> Sequence[Reply]:
        """What came out of the session; of frames, the protocol tells nothing."""
        match event:
            case Warned(message) if message.startswith("answer"):
                self._failure = message
            case AnswerStarted(question):
                self._turns[question.id].has_started = True
            case AnswerDelta(_, text):
                return [piece(text)]
            case AnswerFinished():
                return self._finished(event)
        return []

    def alerted(self, alert: Alert) -> Sequence[Reply]:
        """A turn of the model that the client did not ask for."""
        question = Question(alert.watch.id, alert.watch.question, alert.at_ns)
        answer = AnswerFinished(
            question, alert.text, FinishReason.STOP, alert.tokens, None, alert.stats, alert.evidence
        )
        told = completed(answer, self._config.ignored, trigger=alert.watch.id)
        return [piece(alert.text), *told, *self._resumption()]

    def may_return(self, *, lost: bool) -> bool:
        """Whoever has a handle may, and nobody else can."""
        return self._config.resumes

    def ending(self, left_s: float) -> Sequence[Reply]:
        """The connection will be closed, in whole seconds."""
        return [{"goAway": {"timeLeft": f"{int(left_s)}s"}}]

    def numbered(self, message: Message, number: int) -> Message:
        """As it is; a handle gets the number, so that a client that comes back with it is told what came after."""
        update = message.get("sessionResumptionUpdate")
        if update is None:
            return message
        return {"sessionResumptionUpdate": {**update, "newHandle": f"{self._handle}.{number}"}}

    # ---- kept on disk ------------------------------------------------------------------------------

    def state(self) -> State:
        """The setup, what was not asked yet, the turns that are to come, and which messages count."""
        return State(
            facts={
                "config": dataclasses.asdict(self._config),
                "is_set_up": self._is_set_up,
                "unasked": list(self._unasked),
                "turns": {question_id: list(turn.texts) for question_id, turn in self._turns.items()},
                "consumed": self._consumed,
                "late_instructions": self._late_instructions,
            }
        )

    def restore(self, state: State) -> None:
        """Go on where another was.

        Raises:
            StateError: it is not what `state` gives.
        """
        config = state.fact("config", dict)
        self._config = GeminiConfig(**config | {"ignored": tuple(config["ignored"])})
        self._is_set_up = state.fact("is_set_up", bool)
        self._unasked = list(state.fact("unasked", list))
        self._turns = {question_id: _Turn(texts) for question_id, texts in state.fact("turns", dict).items()}
        self._consumed = self._acknowledged = state.count("consumed")
        self._late_instructions = state.fact("late_instructions", str)

    # ---- setup -------------------------------------------------------------------------------------

    def _set_up(self, given: Mapping[str, Any]) -> Sequence[Reply]:
        if not self._may_set_up:
            raise MessageError("the setup came already; it is the first message and no other")
        is_back = self._is_set_up
        config = self._config.updated(given, self._limits)
        if is_back:  # a client sends again what it sent at first; its history is in the memory
            config = dataclasses.replace(config, has_history=self._config.has_history)
        self._apply(config, watches_of(given, self._watchman.limits))
        self._is_set_up, self._may_set_up = True, False
        return [] if is_back else self._setup_complete()

    def _update_context(self, given: Mapping[str, Any]) -> Sequence[Reply]:
        known = {name: get(given, name) for name in ("systemInstruction", "tools")}
        self._apply(self._config.updated(known, self._limits), watches_of(known, self._watchman.limits))
        return []

    def _apply(self, config: GeminiConfig, watches: list[Watch] | None) -> None:
        if not self._session.has_begun:
            self._session.configure(config.options())
        elif config.budget_tokens != self._config.budget_tokens:
            raise MessageError("the stream has begun and its memory has its size; leave out contextWindowCompression")
        elif config.instructions != self._config.instructions:
            self._late_instructions = config.instructions
        if watches is not None:
            self._watchman.set_all(watches)
        self._config = config

    def _setup_complete(self) -> list[Reply]:
        return [{"setupComplete": {"sessionId": self._session.id}}, *self._resumption()]

    def _resumption(self) -> list[Reply]:
        """A handle for all that was told so far, if the client wants handles; `numbered` completes it."""
        if not self._config.resumes:
            return []
        update: dict[str, Any] = {"resumable": True}
        if self._config.transparent:
            self._acknowledged = self._consumed
            update["lastConsumedClientMessageIndex"] = self._consumed
        return [{"sessionResumptionUpdate": update}]

    def _acknowledge(self) -> list[Reply]:
        is_due = self._consumed - self._acknowledged >= _ACKNOWLEDGED_EVERY
        return self._resumption() if self._config.transparent and is_due else []

    # ---- what the client says ----------------------------------------------------------------------

    def _take_content(self, given: Mapping[str, Any]) -> Sequence[Reply]:
        said = Said()
        said.add_turns(given.get("turns"), "turns", self._limits)
        ends = as_flag(get(given, "turnComplete") or False, "turnComplete")
        said.asks = ends and not self._config.has_history
        if ends:
            self._config = dataclasses.replace(self._config, has_history=False)
        self._interrupt()
        return self._take(said)

    def _take_realtime(self, given: Mapping[str, Any]) -> Sequence[Reply]:
        said, text = Said(), given.get("text")
        if given.get("audio") is not None:
            raise MessageError("this server takes no audio; send text and images", code="unsupported_content")
        said.add_images(get(given, "mediaChunks"), "mediaChunks", self._limits)
        if given.get("video") is not None:
            said.add_image(given["video"], "video", self._limits)
        if text is not None:
            said.texts.append(as_text(text, "text", most=self._limits.text_characters))
        begins, ends = (get(given, name) is not None for name in ("activityStart", "activityEnd"))
        is_alone = text is not None and not self._is_active
        if begins or is_alone:
            self._interrupt()
        self._is_active = (self._is_active or begins) and not ends
        said.asks = bool(self._unasked or said.texts) if ends else is_alone and not begins
        return self._take(said)

    def _take(self, said: Said) -> Sequence[Reply]:
        most = self._limits.text_characters
        if sum(len(text) for text in [*self._unasked, *said.texts]) > most:
            raise MessageError(f"more than {most} characters wait to be asked; complete the turn before")
        if said.images:
            return [TakeFrames(tuple(said.images), tuple(said.timestamps_ms), said)]
        return self._gather(said)

    def _gather(self, said: Said) -> Sequence[Reply]:
        self._unasked += said.texts
        return self._ask() if said.asks else []

    def _refuse_tools(self, _given: Mapping[str, Any]) -> Sequence[Reply]:
        raise MessageError("no tool was called: tools are not supported", code="unsupported_content")

    # ---- answers -----------------------------------------------------------------------------------

    def _ask(self) -> Sequence[Reply]:
        texts, self._unasked = self._unasked, []
        text = "\n\n".join(part for part in (self._late_instructions, "\n".join(texts)) if part)
        question = self._session.new_question(text, max_tokens=self._limits.tokens(self._config.max_output_tokens))
        try:
            self._session.ask(question, in_order=True)
        except SessionError:  # the session is about to end, as was told
            return interrupted(None)
        self._turns[question.id] = _Turn(texts)
        return []

    def _interrupt(self) -> None:
        """End what is being answered. What was not begun waits to be asked again, with what comes now."""
        if not self._config.interrupts:
            return
        taken_back: list[str] = []
        for question_id, turn in self._turns.items():
            if turn.is_cancelled:
                continue
            turn.is_cancelled = True
            if not turn.has_started:
                taken_back += turn.texts
            with contextlib.suppress(SessionError):  # the session is about to end, and its answers with it
                self._session.cancel(question_id)
        self._unasked = taken_back + self._unasked

    def _finished(self, answer: AnswerFinished) -> Sequence[Reply]:
        del self._turns[answer.question.id]
        failure, self._failure = self._failure or BROKEN, ""
        match answer.reason:
            case FinishReason.FAILED:
                return [*interrupted(answer), HangUp(INTERNAL, failure)]
            case FinishReason.REFUSED:
                return [*interrupted(answer), HangUp(TRY_LATER, REFUSED)]
            case FinishReason.CANCELLED:
                return [*interrupted(answer), *self._resumption()]
        return [*completed(answer, self._config.ignored), *self._resumption()]


def _parse(data: str | bytes) -> tuple[str, dict[str, Any]]:
    message = parse_object(data)
    kinds = [kind for kind in _ON_MESSAGE if get(message, kind) is not None]
    if len(kinds) != 1:
        raise MessageError(f"a message has exactly one of {', '.join(_ON_MESSAGE)}")
    return kinds[0], as_object(get(message, kinds[0]), kinds[0])


_G = GeminiAdapter
_ON_MESSAGE: Mapping[str, Callable[[GeminiAdapter, Mapping[str, Any]], Sequence[Reply]]] = {
    "setup": _G._set_up,
    "clientContent": _G._take_content,
    "realtimeInput": _G._take_realtime,
    "toolResponse": _G._refuse_tools,
    "contextUpdate": _G._update_context,
}
