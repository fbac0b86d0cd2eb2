"""`setup` of the Gemini Live protocol: what a client asks for, and what of it a text server with a memory can give."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from inf_stream.server.protocols.gemini_content import extras_of, parts_of
from inf_stream.server.protocols.limits import ClientLimits
from inf_stream.server.protocols.messages import MessageError, as_count, as_flag, as_list, as_object, as_text
from inf_stream.server.protocols.watches import Watch, WatchLimits, parse_watches
from inf_stream.server.sessions.engines import SessionOptions

HANDLE_CHARACTERS = 256
_HIGHEST = (1 << 63) - 1
_MOST_DIGITS = 19
_MODALITY_CHARACTERS = 64
_MOST_IGNORED, _NAME_CHARACTERS = 32, 64


@dataclass(frozen=True)
class GeminiConfig:
    """The effective setup.

    Attributes:
        instructions: system prompt; empty takes the server's.
        max_output_tokens: of an answer, or None.
        budget_tokens: of the cache, or None.
        resumes: whether the client wants handles to come back with.
        transparent: whether it wants to know which of its messages count.
        has_history: whether its first content is to be remembered, not answered.
        interrupts: whether what it says ends a running answer.
        ignored: what it asked for that a text server has no use for.
    """

    instructions: str = ""
    max_output_tokens: int | None = None
    budget_tokens: int | None = None
    resumes: bool = False
    transparent: bool = False
    has_history: bool = False
    interrupts: bool = True
    ignored: tuple[str, ...] = ()

    def updated(self, setup: Mapping[str, Any], limits: ClientLimits) -> "GeminiConfig":
        """With the fields of a setup that are present; those unknown here are noted in `ignored`.

        Raises:
            MessageError: naming the field.
        """
        changes: dict[str, Any] = {}
        ignored = set(self.ignored)
        for key, value in setup.items():
            if value is None:
                continue
            match key:
                case "model":
                    pass  # the server has one
                case "system_instruction":
                    changes["instructions"] = parse_instructions(value, limits)
                case "generation_config":
                    changes |= _parse_generation(as_object(value, "generationConfig"), ignored)
                case "context_window_compression":
                    changes["budget_tokens"] = _parse_compression(value, limits)
                case "session_resumption":
                    given = as_object(value, "sessionResumption")
                    changes |= {"resumes": True, "transparent": _flag(given, "transparent", "sessionResumption")}
                case "history_config":
                    given = as_object(value, "historyConfig")
                    changes["has_history"] = _flag(given, "initial_history_in_client_content", "historyConfig")
                case "realtime_input_config":
                    handling = as_object(value, "realtimeInputConfig").get("activity_handling")
                    changes["interrupts"] = handling != "NO_INTERRUPTION"
                case _:
                    ignored.update(_named(key, value))
        return dataclasses.replace(self, **changes, ignored=tuple(sorted(ignored)[:_MOST_IGNORED]))

    def options(self) -> SessionOptions:
        """For the session's engine."""
        return SessionOptions(self.instructions, self.budget_tokens)


def parse_instructions(value: Any, limits: ClientLimits) -> str:
    """A system instruction: the text of each of its parts is a paragraph.

    Raises:
        MessageError: naming the field.
    """
    where = "systemInstruction"
    if isinstance(value, str):
        return as_text(value, where, most=limits.text_characters)
    most = limits.text_characters
    texts = [as_text(part.get("text") or "", f"{at}.text", most=most) for at, part in _instruction_parts(value)]
    return as_text("\n\n".join(text for text in texts if text), where, most=most)


def watches_of(setup: Mapping[str, Any], limits: WatchLimits) -> list[Watch] | None:
    """The standing questions in the metadata of a system instruction's parts, or None if they have none.

    Raises:
        MessageError: naming the field.
    """
    value = setup.get("system_instruction")
    if value is None or isinstance(value, str):
        return None
    given = [extras_of(part, at).get("watches") for at, part in _instruction_parts(value)]
    found = [one for one in given if one is not None]
    if len(found) > 1:
        raise MessageError("two parts of systemInstruction have watches; put all into one")
    return parse_watches(found[0], "watches", limits) if found else None


def _instruction_parts(value: Any) -> list[tuple[str, dict[str, Any]]]:
    return parts_of(as_object(value, "systemInstruction"), "systemInstruction")


def _parse_generation(given: Mapping[str, Any], ignored: set[str]) -> dict[str, Any]:
    changes: dict[str, Any] = {}
    for key, value in given.items():
        if value is None:
            continue
        match key:
            case "max_output_tokens":
                changes["max_output_tokens"] = _parse_tokens(value, "generationConfig.maxOutputTokens")
            case "response_modalities":
                if _wants_more_than_text(value, "generationConfig.responseModalities"):
                    ignored.add("generation_config.response_modalities")
            case _:
                ignored.update(_named(f"generation_config.{key}", value))
    return changes


def _wants_more_than_text(value: Any, where: str) -> bool:
    wanted = {as_text(one, where, most=_MODALITY_CHARACTERS).upper() for one in as_list(value, where, most=4)}
    if wanted and "TEXT" not in wanted:
        raise MessageError(f"this server answers in text alone; ask for ['TEXT'] in '{where}'", param=where)
    return wanted > {"TEXT"}


def _parse_compression(value: Any, limits: ClientLimits) -> int | None:
    where = "contextWindowCompression"
    given = as_object(value, where)
    window = as_object(given.get("sliding_window") or {}, f"{where}.slidingWindow")
    sizes = (
        (given.get("trigger_tokens"), f"{where}.triggerTokens"),
        (window.get("target_tokens"), f"{where}.targetTokens"),
    )
    wanted = [_parse_tokens(tokens, at) for tokens, at in sizes if tokens is not None]
    return min(wanted[0], limits.budget_tokens) if wanted else None


def _parse_tokens(value: Any, where: str) -> int:
    """A number, or the text of one, as protobuf's JSON has numbers of 64 bits."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= _MOST_DIGITS:
        value = int(value)
    return as_count(value, where, 1, _HIGHEST)


def _flag(given: Mapping[str, Any], key: str, where: str) -> bool:
    value = given.get(key)
    return value is not None and as_flag(value, f"{where}.{key}")


def _named(key: str, value: Any) -> set[str]:
    """The name of a field that asks for something; an empty object may well do so."""
    return set() if value is False or value == [] else {key[:_NAME_CHARACTERS]}
