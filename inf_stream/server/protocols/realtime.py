"""`/v1/realtime`: the OpenAI Realtime protocol (GA), text out, frames as `input_image` items.

Client messages come in by `received`, and go through the table `_ON_EVENT` at the end of this module; what the
session emits comes in by `emitted`. Both give what the client is told. See the README for what is mapped how.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from inf_stream.base.errors import InfStreamError
from inf_stream.base.events import AnswerDelta, AnswerFinished, AnswerStarted, FinishReason, Question, Warned
from inf_stream.base.state import State
from inf_stream.server.protocols.adapter import Message, Reply, Session, TakeFrames
from inf_stream.server.protocols.answers import BROKEN, REFUSED
from inf_stream.server.protocols.limits import ClientLimits
from inf_stream.server.protocols.messages import MessageError, as_list, as_object, as_text, parse_object, required
from inf_stream.server.protocols.realtime_config import (
    RealtimeConfig,
    parse_metadata,
    parse_modalities,
    parse_output_tokens,
    watches_of,
)
from inf_stream.server.protocols.realtime_items import MOST_PARTS, Item, ItemStore, join_texts, new_id, parse_item
from inf_stream.server.protocols.realtime_response import Response
from inf_stream.server.protocols.watches import Alert, Watchman
from inf_stream.server.sessions.live_session import SessionEvent

_ID_CHARACTERS = 512


class RealtimeAdapter:
    """One client of `/v1/realtime` (`inf_stream.server.protocols.adapter.Adapter`).

    Texts of the client gather until a response is asked for, and are then the question. Frames go into the stream as
    they come. `conversation: "none"` is an aside: answered out of the memory, without a trace in it.

    Args:
        session: of this client alone.
        limits: of the server.
        watchman: of the session.
        handle: with which the client can come back, told as `session.inf_stream.handle`.
    """

    def __init__(self, session: Session, limits: ClientLimits, watchman: Watchman, handle: str):
        self._session, self._limits, self._watchman, self._handle = session, limits, watchman, handle
        self._config = RealtimeConfig()
        self._conversation_id = new_id("conv")
        self._items = ItemStore()
        self._unasked: list[Item] = []
        self._responses: dict[str, Response] = {}
        self._writing: str | None = None
        self._last_response_id = ""
        self._failure = ""
        self._late_instructions = ""

    # ---- in ----------------------------------------------------------------------------------------

    def opened(self) -> Sequence[Reply]:
        """The session as it is."""
        return [{"type": "session.created", "session": self._session_object()}]

    def resumed(self) -> Sequence[Reply]:
        """The same again: a client always learns first whom it talks to."""
        return self.opened()

    def received(self, data: str | bytes) -> Sequence[Reply]:
        """One event of the client."""
        event_id: str | None = None
        try:
            if isinstance(data, bytes):
                raise MessageError("a binary message came; this protocol is text", code="invalid_json")
            event = parse_object(data)
            given_id = event.get("event_id")
            event_id = given_id[:_ID_CHARACTERS] if isinstance(given_id, str) else None
            kind = required(event, "type")
            handle = _ON_EVENT.get(kind) if isinstance(kind, str) else None
            if handle is None:
                raise MessageError(f"event type '{str(kind)[:80]}' is unknown", code="unknown_event_type", param="type")
            return handle(self, event)
        except MessageError as error:
            return [_error(error, error.code, error.param, event_id)]
        except InfStreamError as error:
            return [_error(error, "invalid_request", None, event_id)]

    def frames_taken(self, tag: Item, numbers: Sequence[int]) -> Sequence[Reply]:
        """An item with frames is complete."""
        return self._add_item(tag)

    def frames_refused(self, tag: Item, error: MessageError) -> Sequence[Reply]:
        """An item with frames is refused as a whole."""
        return [_error(error, error.code, error.param, None)]

    def emitted(self, event: SessionEvent) -> Sequence[Reply]:
        """What came out of the session. Dropped frames are counted, never reported: some clients end at any error."""
        match event:
            case Warned(message) if message.startswith("answer"):
                self._failure = message
            case AnswerStarted(question):
                return self._responses[question.id].started()
            case AnswerDelta(question_id, text):
                return [self._responses[question_id].delta(text)]
            case AnswerFinished(question):
                return self._finished(question, event)
        return []

    def alerted(self, alert: Alert) -> Sequence[Reply]:
        """A response the client did not ask for."""
        response = Response(alert.metadata(), None, alert.watch.max_tokens)
        question = Question(new_id("watch"), alert.watch.question, alert.at_ns)
        answer = AnswerFinished(
            question, alert.text, FinishReason.STOP, alert.tokens, None, alert.stats, alert.evidence
        )
        return [response.created(), *response.started(), response.delta(alert.text), *response.finished(answer, "")]

    def may_return(self, *, lost: bool) -> bool:
        """A goodbye is meant."""
        return lost

    def ending(self, left_s: float) -> Sequence[Reply]:
        """Nothing: the close code says it."""
        return []

    def numbered(self, message: Message, number: int) -> Message:
        """With an `event_id` that tells the order."""
        return {"event_id": f"event_{number}", **message}

    # ---- kept on disk ------------------------------------------------------------------------------

    def state(self) -> State:
        """The session's settings, the items that are still known, and the responses that are to come."""
        return State(
            facts={
                "config": dataclasses.asdict(self._config),
                "conversation_id": self._conversation_id,
                "items": [item.kept() for item in self._items],
                "unasked": [item.kept() for item in self._unasked],
                "responses": {question_id: response.kept() for question_id, response in self._responses.items()},
                "writing": self._writing,
                "last_response_id": self._last_response_id,
                "late_instructions": self._late_instructions,
            }
        )

    def restore(self, state: State) -> None:
        """Go on where another was.

        Raises:
            StateError: it is not what `state` gives.
        """
        self._config = RealtimeConfig(**state.fact("config", dict))
        self._conversation_id = state.fact("conversation_id", str)
        for kept in state.fact("items", list):
            self._items.add(Item.restored(kept))
        self._unasked = [Item.restored(kept) for kept in state.fact("unasked", list)]
        responses = state.fact("responses", dict)
        self._responses = {question_id: Response.restored(kept) for question_id, kept in responses.items()}
        self._writing = state.facts["writing"]
        self._last_response_id = state.fact("last_response_id", str)
        self._late_instructions = state.fact("late_instructions", str)

    # ---- session -----------------------------------------------------------------------------------

    def _session_object(self) -> dict[str, Any]:
        extras = {
            "handle": self._handle,
            "watches": [watch.as_object() for watch in self._watchman.watches],
            "lost_s": round(self._session.lost_s, 3),
            "stats": self._session.stats(),
        }
        return self._config.as_object(self._session.id, self._limits, extras)

    def _update(self, event: Mapping[str, Any]) -> Sequence[Reply]:
        given = as_object(required(event, "session"), "session")
        config = self._config.updated(given, self._limits)
        watches = watches_of(given, self._watchman.limits)
        if not self._session.has_begun:
            self._session.configure(config.options())
        elif config.budget_tokens != self._config.budget_tokens:
            raise MessageError(
                "the stream has begun and its memory has its size; set 'session.truncation' before the first item",
                code="session_begun",
                param="session.truncation",
            )
        elif config.instructions != self._config.instructions:
            self._late_instructions = config.instructions
        if watches is not None:
            self._watchman.set_all(watches)
        self._config = config
        return [{"type": "session.updated", "session": self._session_object()}]

    # ---- items -------------------------------------------------------------------------------------

    def _create_item(self, event: Mapping[str, Any]) -> Sequence[Reply]:
        item = parse_item(required(event, "item"), "item", self._limits)
        if item.id in self._items:
            raise MessageError(f"item id '{item.id}' is in use", code="item_id_in_use", param="item.id")
        if sum(len(one.text) for one in [*self._unasked, item]) > self._limits.text_characters:
            raise MessageError(
                f"more than {self._limits.text_characters} characters wait to be asked; ask, or delete some",
                code="string_above_max_length",
                param="item.content",
            )
        if item.images:
            return [TakeFrames(tuple(item.images), tuple(item.timestamps_ms), item)]
        return self._add_item(item)

    def _add_item(self, item: Item) -> Sequence[Reply]:
        previous = self._items.latest_id
        self._items.add(item)
        if item.texts:
            self._unasked.append(item)
        told = {"previous_item_id": previous, "item": item.as_object()}
        return [{"type": "conversation.item.added", **told}, {"type": "conversation.item.done", **told}]

    def _delete_item(self, event: Mapping[str, Any]) -> Sequence[Reply]:
        item_id = self._item_id(event)
        self._items.remove(item_id)
        self._unasked = [item for item in self._unasked if item.id != item_id]
        return [{"type": "conversation.item.deleted", "item_id": item_id}]

    def _retrieve_item(self, event: Mapping[str, Any]) -> Sequence[Reply]:
        item = self._items.get(self._item_id(event))
        return [{"type": "conversation.item.retrieved", "item": item.as_object()}]

    def _truncate_item(self, event: Mapping[str, Any]) -> Sequence[Reply]:
        item = self._items.get(self._item_id(event))
        if item.role != "assistant":
            raise MessageError("only answers can be truncated", code="item_truncate_invalid_item_id", param="item_id")
        told = {"audio_end_ms": 0, "content_index": 0, "item_id": item.id}  # there is no audio to cut
        return [{"type": "conversation.item.truncated", **told}]

    def _item_id(self, event: Mapping[str, Any]) -> str:
        return as_text(required(event, "item_id"), "item_id", most=_ID_CHARACTERS)

    # ---- responses ---------------------------------------------------------------------------------

    def _create_response(self, event: Mapping[str, Any]) -> Sequence[Reply]:
        given = as_object(event.get("response") or {}, "response")
        self._config = self._config.ignoring(given)
        metadata = parse_metadata(given.get("metadata"))
        is_aside = self._parse_conversation(given.get("conversation"))
        if not is_aside and self._writing is not None:
            raise MessageError(
                f"response '{self._responses[self._writing].id}' is being written; wait for its end or cancel it",
                code="conversation_already_has_active_response",
            )
        if given.get("output_modalities") is not None:
            parse_modalities(given["output_modalities"], "response.output_modalities")
        asked = given.get("max_output_tokens", self._config.max_output_tokens)
        tokens = parse_output_tokens(asked, "response.max_output_tokens")
        text = self._question_text(given)
        question = self._session.new_question(text, max_tokens=self._limits.tokens(tokens), aside=is_aside)
        conversation = None if is_aside else self._conversation_id
        response = Response(metadata, conversation, tokens, self._items.latest_id)
        self._session.ask(question, in_order=True)
        self._responses[question.id] = response
        if not is_aside:
            self._writing = question.id
            if given.get("input") is None:
                self._unasked = []
        self._last_response_id = response.id
        return [response.created()]

    def _question_text(self, given: Mapping[str, Any]) -> str:
        instructions = given.get("instructions")
        if instructions is None:
            instructions = self._late_instructions
        lead = as_text(instructions, "response.instructions", most=self._limits.text_characters)
        items = self._unasked if given.get("input") is None else self._parse_input(given["input"])
        return "\n\n".join(part for part in (lead, join_texts(items)) if part)

    def _parse_input(self, value: Any) -> list[Item]:
        items = []
        for index, one in enumerate(as_list(value, "response.input", most=MOST_PARTS)):
            where = f"response.input[{index}]"
            given = as_object(one, where)
            if given.get("type") == "item_reference":
                items.append(self._items.get(as_text(required(given, "id", where), f"{where}.id", most=_ID_CHARACTERS)))
                continue
            item = parse_item(given, where, self._limits)
            if item.images:
                raise MessageError(
                    f"'{where}' holds an image; add it to the stream with conversation.item.create first",
                    code="unsupported_content",
                    param=where,
                )
            items.append(item)
        as_text(join_texts(items), "response.input", most=self._limits.text_characters)
        return items

    def _parse_conversation(self, value: Any) -> bool:
        if value not in (None, "auto", "none", self._conversation_id):
            raise MessageError(
                "'response.conversation' names no conversation; use 'auto' or 'none'", param="response.conversation"
            )
        return bool(value == "none")

    def _cancel_response(self, event: Mapping[str, Any]) -> Sequence[Reply]:
        wanted = event.get("response_id")
        question_id = self._writing
        if wanted is not None:
            wanted = as_text(wanted, "response_id", most=_ID_CHARACTERS)
            question_id = next((q for q, r in self._responses.items() if r.id == wanted), None)
        if question_id is None:
            raise MessageError(
                "no such response is in progress", code="response_cancel_not_active", param="response_id"
            )
        self._session.cancel(question_id)
        return []

    def _finished(self, question: Question, answer: AnswerFinished) -> Sequence[Reply]:
        response = self._responses.pop(question.id)
        failure, self._failure = self._failure or BROKEN, ""
        if answer.reason is FinishReason.REFUSED:
            failure = REFUSED
        told = response.finished(answer, failure)
        if self._writing == question.id:
            self._writing = None
            if response.item is not None:
                self._items.add(response.item)
        return told

    # ---- audio, of which there is none -------------------------------------------------------------

    def _ignore(self, _event: Mapping[str, Any]) -> Sequence[Reply]:
        return []

    def _commit_audio(self, _event: Mapping[str, Any]) -> Sequence[Reply]:
        raise MessageError(
            "the audio buffer is empty: this server takes no audio", code="input_audio_buffer_commit_empty"
        )

    def _clear_audio_in(self, _event: Mapping[str, Any]) -> Sequence[Reply]:
        return [{"type": "input_audio_buffer.cleared"}]

    def _clear_audio_out(self, _event: Mapping[str, Any]) -> Sequence[Reply]:
        return [{"type": "output_audio_buffer.cleared", "response_id": self._last_response_id}]


def _error(error: InfStreamError, code: str, param: str | None, event_id: str | None) -> Message:
    details = {
        "type": "invalid_request_error",
        "code": code,
        "message": str(error),
        "param": param,
        "event_id": event_id,
    }
    return {"type": "error", "error": details}


_R = RealtimeAdapter
_ON_EVENT: Mapping[str, Callable[[RealtimeAdapter, Mapping[str, Any]], Sequence[Reply]]] = {
    "session.update": _R._update,
    "conversation.item.create": _R._create_item,
    "conversation.item.delete": _R._delete_item,
    "conversation.item.retrieve": _R._retrieve_item,
    "conversation.item.truncate": _R._truncate_item,
    "response.create": _R._create_response,
    "response.cancel": _R._cancel_response,
    "input_audio_buffer.append": _R._ignore,
    "input_audio_buffer.commit": _R._commit_audio,
    "input_audio_buffer.clear": _R._clear_audio_in,
    "output_audio_buffer.clear": _R._clear_audio_out,
}
