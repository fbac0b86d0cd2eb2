"""What a client of the Gemini Live protocol is told of an answer."""

from collections.abc import Sequence
from typing import Any

from inf_stream.base.clock import seconds
from inf_stream.base.events import AnswerFinished
from inf_stream.server.protocols.adapter import Message
from inf_stream.server.protocols.answers import TokenCounts, evidence_objects
from inf_stream.server.protocols.gemini_content import EXTRAS


def piece(text: str) -> Message:
    """More of the text of an answer."""
    return _content({"modelTurn": _model_turn({"text": text})})


def completed(answer: AnswerFinished, ignored: Sequence[str], trigger: str | None = None) -> list[Message]:
    """An answer has been given; what it rests on is metadata of a part without text, in its last content."""
    facts: dict[str, Any] = {
        "reason": answer.reason.value,
        "stream_time_s": round(seconds(answer.question.at_ns), 3),
        "evidence": evidence_objects(answer.evidence),
        "ttft_s": answer.ttft_s,
        "stats": answer.stats,
    }
    if answer.warning is not None:
        facts["warning"] = answer.warning
    if trigger is not None:
        facts["trigger"] = trigger
    if ignored:
        facts["ignored"] = list(ignored)
    last = _model_turn({"text": "", "partMetadata": {EXTRAS: facts}})
    return [_content({"modelTurn": last, "generationComplete": True}), _turn_complete(answer)]


def loss(lost_s: float) -> Message:
    """A part without text, whose metadata say how many seconds of the stream were lost."""
    return _content({"modelTurn": _model_turn({"text": "", "partMetadata": {EXTRAS: {"lost_s": round(lost_s, 3)}}})})


def interrupted(answer: AnswerFinished | None) -> list[Message]:
    """An answer was cut short, or not even begun (None)."""
    return [_content({"interrupted": True}), _turn_complete(answer)]


def _turn_complete(answer: AnswerFinished | None) -> Message:
    told = _content({"turnComplete": True})
    return told if answer is None else told | {"usageMetadata": _usage(answer)}


def _usage(answer: AnswerFinished) -> dict[str, Any]:
    tokens = TokenCounts.of(answer)
    return {
        "promptTokenCount": tokens.read,
        "cachedContentTokenCount": tokens.cached,
        "responseTokenCount": tokens.written,
        "totalTokenCount": tokens.read + tokens.written,
        "promptTokensDetails": [
            {"modality": "TEXT", "tokenCount": tokens.read - tokens.images},
            {"modality": "IMAGE", "tokenCount": tokens.images},
        ],
        "responseTokensDetails": [{"modality": "TEXT", "tokenCount": tokens.written}],
    }


def _content(fields: dict[str, Any]) -> Message:
    return {"serverContent": fields}


def _model_turn(part: dict[str, Any]) -> dict[str, Any]:
    return {"role": "model", "parts": [part]}
