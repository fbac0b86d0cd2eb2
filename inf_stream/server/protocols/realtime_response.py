"""One answer in the words of the OpenAI Realtime protocol, from `response.created` to `response.done`."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from inf_stream.base.clock import seconds
from inf_stream.base.events import AnswerFinished, FinishReason
from inf_stream.server.protocols.adapter import Message
from inf_stream.server.protocols.answers import TokenCounts, evidence_objects
from inf_stream.server.protocols.realtime_items import Item, assistant_item, new_id

_STATUS = {
    FinishReason.STOP: "completed",
    FinishReason.LENGTH: "incomplete",
    FinishReason.CANCELLED: "cancelled",
    FinishReason.REFUSED: "failed",
    FinishReason.FAILED: "failed",
}
_ITEM_STATUS = {FinishReason.STOP: "completed"}
_REASON = {FinishReason.LENGTH: "max_output_tokens", FinishReason.CANCELLED: "client_cancelled"}
_ERROR_CODE = {FinishReason.REFUSED: "rate_limit_exceeded", FinishReason.FAILED: "server_error"}
_MOST_EVIDENCE = 8


class Response:
    """An answer and what the client is told of it, step by step.

    Args:
        metadata: of the client's request, echoed.
        conversation_id: of the conversation that it writes, or None if it writes none.
        max_output_tokens: as the client asked.
        previous_item_id: of the conversation, for the item that the answer becomes.
    """

    def __init__(
        self,
        metadata: Mapping[str, str] | None,
        conversation_id: str | None,
        max_output_tokens: int | str,
        previous_item_id: str | None = None,
    ):
        self.id, self.item_id = new_id("resp"), new_id("item")
        self.conversation_id = conversation_id
        self.previous_item_id = previous_item_id
        self.item: Item | None = None
        self._metadata = dict(metadata or {})
        self._max_output_tokens = max_output_tokens
        self._has_started = False

    def kept(self) -> dict[str, Any]:
        """As `restored` takes it, of an answer that has not started."""
        return {
            "id": self.id,
            "item_id": self.item_id,
            "metadata": dict(self._metadata),
            "conversation_id": self.conversation_id,
            "max_output_tokens": self._max_output_tokens,
            "previous_item_id": self.previous_item_id,
        }

    @classmethod
    def restored(cls, kept: Mapping[str, Any]) -> "Response":
        """What `kept` was given of."""
        names = ("metadata", "conversation_id", "max_output_tokens", "previous_item_id")
        response = cls(*(kept[name] for name in names))
        response.id, response.item_id = kept["id"], kept["item_id"]
        return response

    def created(self) -> Message:
        """The answer is asked for."""
        return {"type": "response.created", "response": self._as_object("in_progress", [])}

    def started(self) -> list[Message]:
        """Its first token is about to be computed."""
        self._has_started = True
        item = assistant_item(self.item_id, "", "in_progress").as_object() | {"content": []}
        added: list[Message] = [{"type": "response.output_item.added", **self._place(), "item": item}]
        if self.conversation_id is not None:
            added.append(self._conversation("added", item))
        part = {"type": "text", "text": ""}
        added.append({"type": "response.content_part.added", **self._content(), "part": part})
        return added

    def delta(self, text: str) -> Message:
        """More of its text."""
        return {"type": "response.output_text.delta", **self._content(), "delta": text}

    def finished(self, answer: AnswerFinished, failure: str) -> list[Message]:
        """It has ended, one way or another; `failure` says why if it could not be given."""
        told: list[Message] = []
        output: list[dict[str, Any]] = []
        if self._has_started:
            self.item = assistant_item(self.item_id, answer.text, _ITEM_STATUS.get(answer.reason, "incomplete"))
            item = self.item.as_object()
            output = [item]
            part = {"type": "text", "text": answer.text}
            told += [
                {"type": "response.output_text.done", **self._content(), "text": answer.text},
                {"type": "response.content_part.done", **self._content(), "part": part},
            ]
            if self.conversation_id is not None:
                told.append(self._conversation("done", item))
            told.append({"type": "response.output_item.done", **self._place(), "item": item})
        self._metadata |= _facts(answer)
        done = self._as_object(_STATUS[answer.reason], output)
        done["status_details"] = _details(answer.reason, failure)
        done["usage"] = usage(answer)
        done["inf_stream"] = {
            "ttft_s": answer.ttft_s,
            "evidence": evidence_objects(answer.evidence[:_MOST_EVIDENCE]),
            "stats": answer.stats,
        }
        return [*told, {"type": "response.done", "response": done}]

    def _as_object(self, status: str, output: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": "realtime.response",
            "status": status,
            "status_details": None,
            "output": list(output),
            "conversation_id": self.conversation_id,
            "output_modalities": ["text"],
            "max_output_tokens": self._max_output_tokens,
            "metadata": dict(self._metadata) or None,
            "usage": None,
        }

    def _place(self) -> dict[str, Any]:
        return {"response_id": self.id, "output_index": 0}

    def _content(self) -> dict[str, Any]:
        return {**self._place(), "item_id": self.item_id, "content_index": 0}

    def _conversation(self, what: str, item: Mapping[str, Any]) -> Message:
        return {
            "type": f"conversation.item.{what}",
            "previous_item_id": self.previous_item_id,
            "item": dict(item),
        }


def usage(answer: AnswerFinished) -> dict[str, Any]:
    """Tokens that went in and came out."""
    tokens = TokenCounts.of(answer)
    return {
        "total_tokens": tokens.read + tokens.written,
        "input_tokens": tokens.read,
        "output_tokens": tokens.written,
        "input_token_details": {
            "cached_tokens": tokens.cached,
            "text_tokens": tokens.read - tokens.images,
            "image_tokens": tokens.images,
            "audio_tokens": 0,
        },
        "output_token_details": {"text_tokens": tokens.written, "audio_tokens": 0},
    }


def _facts(answer: AnswerFinished) -> dict[str, str]:
    """What every client can read, as texts."""
    facts = {"stream_time_s": f"{seconds(answer.question.at_ns):.3f}"}
    if answer.evidence:
        facts["evidence"] = json.dumps(evidence_objects(answer.evidence[:_MOST_EVIDENCE]), separators=(",", ":"))
    if answer.warning is not None:
        facts["warning"] = answer.warning
    return facts


def _details(reason: FinishReason, failure: str) -> dict[str, Any]:
    details: dict[str, Any] = {"type": _STATUS[reason]}
    if reason in _REASON:
        details["reason"] = _REASON[reason]
    if reason in _ERROR_CODE:
        code = _ERROR_CODE[reason]
        details["error"] = {"type": "server_error", "code": code, "message": failure or "the answer failed"}
    return details
