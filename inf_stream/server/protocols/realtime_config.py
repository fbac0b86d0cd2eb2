"""`session` of the OpenAI Realtime protocol: what a client asks for, and what it gets."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from inf_stream.server.protocols.limits import ClientLimits
from inf_stream.server.protocols.messages import (
    MessageError,
    as_choice,
    as_count,
    as_list,
    as_number,
    as_object,
    as_text,
)
from inf_stream.server.protocols.watches import Watch, WatchLimits, parse_watches
from inf_stream.server.sessions.engines import SessionOptions

MOST_OUTPUT_TOKENS = 4096
"""The protocol's own limit of `max_output_tokens`."""
_HIGHEST_BUDGET = 1 << 40
_MOST_METADATA, _KEY_CHARACTERS, _VALUE_CHARACTERS = 16, 64, 512
_TEXT_ONLY = {"audio", "include", "parallel_tool_calls", "prompt", "reasoning", "tool_choice", "tools", "tracing"}
"""Fields of the protocol that a text answerer without tools has no use for: taken, and named in `ignored`."""
_RESPONSE_FIELDS = {"conversation", "input", "instructions", "max_output_tokens", "metadata", "output_modalities"}


@dataclass(frozen=True)
class RealtimeConfig:
    """The effective session."""

    instructions: str = ""
    max_output_tokens: int | str = "inf"
    budget_tokens: int | None = None
    ignored: Sequence[str] = ()

    def updated(self, session: Mapping[str, Any], limits: ClientLimits) -> "RealtimeConfig":
        """With the fields of a `session.update` that are present.

        Raises:
            MessageError: naming the field.
        """
        changes: dict[str, Any] = {}
        ignored = set(self.ignored)
        for key, value in session.items():
            where = f"session.{key}"
            match key:
                case "type":
                    as_choice(value, where, ["realtime"])
                case "instructions":
                    text = "" if value is None else as_text(value, where, most=limits.text_characters)
                    changes["instructions"] = text
                case "max_output_tokens":
                    changes["max_output_tokens"] = parse_output_tokens(value, where)
                case "output_modalities":
                    if "audio" in parse_modalities(value, where):
                        ignored.add("output_modalities.audio")
                case "truncation":
                    changes["budget_tokens"] = _parse_truncation(value, limits)
                case "inf_stream":
                    _check_extras(value)
                case "model" | "id" | "object" | "expires_at":
                    pass  # a client may send back what it was given
                case _:
                    if key not in _TEXT_ONLY:
                        raise MessageError(f"'{where}' is unknown", code="unknown_parameter", param=where)
                    if value:
                        ignored.add(key)
        return dataclasses.replace(self, **changes, ignored=sorted(ignored))

    def ignoring(self, response: Mapping[str, Any]) -> "RealtimeConfig":
        """With what a `response.create` asks for that a text server has no use for.

        Raises:
            MessageError: it has a field that the protocol does not know.
        """
        ignored = set(self.ignored)
        for key, value in response.items():
            if key in _TEXT_ONLY:
                ignored |= {f"response.{key}"} if value else set()
            elif key not in _RESPONSE_FIELDS:
                raise MessageError(f"'response.{key}' is unknown", code="unknown_parameter", param=f"response.{key}")
        return dataclasses.replace(self, ignored=sorted(ignored))

    def options(self) -> SessionOptions:
        """For the session's engine."""
        return SessionOptions(self.instructions, self.budget_tokens)

    def as_object(self, session_id: str, limits: ClientLimits, extras: Mapping[str, Any]) -> dict[str, Any]:
        """`session` as the client is told, with our own facts under the one key `inf_stream`."""
        budget = limits.budget_tokens if self.budget_tokens is None else self.budget_tokens
        return {
            "type": "realtime",
            "object": "realtime.session",
            "id": session_id,
            "model": limits.model,
            "output_modalities": ["text"],
            "instructions": self.instructions or limits.instructions,
            "max_output_tokens": self.max_output_tokens,
            "tools": [],
            "tool_choice": "none",
            "truncation": {
                "type": "retention_ratio",
                "retention_ratio": 1.0,
                "token_limits": {"post_instructions": budget},
            },
            "inf_stream": {**extras, "ignored": list(self.ignored)},
        }


def parse_output_tokens(value: Any, where: str) -> int | str:
    """`max_output_tokens`: a number, or "inf".

    Raises:
        MessageError: it is neither.
    """
    if value is None or value == "inf":
        return "inf"
    return as_count(value, where, 1, MOST_OUTPUT_TOKENS)


def parse_modalities(value: Any, where: str) -> list[str]:
    """`output_modalities`.

    Raises:
        MessageError: they are others than text and audio.
    """
    return [as_choice(one, where, ["text", "audio"]) for one in as_list(value, where, most=2)]


def watches_of(session: Mapping[str, Any], limits: WatchLimits) -> list[Watch] | None:
    """`session.inf_stream.watches`, or None if the client does not speak of them.

    Raises:
        MessageError: naming the field.
    """
    given = (session.get("inf_stream") or {}).get("watches")
    return None if given is None else parse_watches(given, "session.inf_stream.watches", limits)


def parse_metadata(value: Any) -> dict[str, str] | None:
    """`response.metadata`: a few short texts.

    Raises:
        MessageError: they are too many, too long, or no texts.
    """
    if value is None:
        return None
    given = as_object(value, "response.metadata")
    if len(given) > _MOST_METADATA:
        raise MessageError(f"'response.metadata' has {len(given)} entries; at most {_MOST_METADATA} are taken",
                           param="response.metadata")  # fmt: skip
    for key, text in given.items():
        as_text(key, "response.metadata", most=_KEY_CHARACTERS)
        as_text(text, f"response.metadata.{key}", most=_VALUE_CHARACTERS)
    return given


def _check_extras(value: Any) -> None:
    for key in as_object(value, "session.inf_stream"):
        if key not in ("watches", "handle", "stats", "ignored", "limits", "lost_s"):
            raise MessageError(f"'session.inf_stream.{key}' is unknown; known: watches", param="session.inf_stream")


def _parse_truncation(value: Any, limits: ClientLimits) -> int | None:
    where = "session.truncation"
    if value in (None, "auto"):
        return None
    if value == "disabled":
        raise MessageError(
            "'session.truncation' is 'disabled'; the memory of a stream without end is always bounded: "
            "use 'auto', or retention_ratio with token_limits",
            param=where,
        )
    given = as_object(value, where)
    as_choice(given.get("type"), f"{where}.type", ["retention_ratio"])
    as_number(given.get("retention_ratio", 1.0), f"{where}.retention_ratio", 0.0, 1.0)
    budget = as_object(given.get("token_limits") or {}, f"{where}.token_limits").get("post_instructions")
    if budget is None:
        return None
    wanted = as_count(budget, f"{where}.token_limits.post_instructions", 1, _HIGHEST_BUDGET)
    return min(wanted, limits.budget_tokens)
