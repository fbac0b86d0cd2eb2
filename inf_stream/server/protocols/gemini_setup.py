"""`setup` of the Gemini Live protocol: what a client asks for, and what of it a text server with a memory can give."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from inf_stream.server.protocols.gemini_content import extras_of, get, get_object, parts_of, snake
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
        """With the fields of a setup that are present; those of no use here are noted in `ignored`.

        Raises:
            MessageError: naming the field.
        """
        changes: dict[str, Any] = {}
        ignored = [*self.ignored, *_unused(setup, ["model", *_ON_FIELD])]
        for name, parse in _ON_FIELD.items():
            value = get(setup, name)
            if value is not None:
                changes |= parse(value, limits)
                ignored += changes.pop("ignored", ())
        return dataclasses.replace(self, **changes, ignored=tuple(dict.fromkeys(ignored))[:_MOST_IGNORED])

    def options(self) -> SessionOptions:
        """For the session's engine."""
        return SessionOptions(self.instructions, self.budget_tokens)


def watches_of(setup: Mapping[str, Any], limits: WatchLimits) -> list[Watch] | None:
    """The standing questions in the metadata of a system instruction's parts, or None if they have none.

    Raises:
        MessageError: naming the field.
    """
    value = get(setup, "systemInstruction")
    if value is None or isinstance(value, str):
        return None
    given = [extras_of(part, at).get("watches") for at, part in _instruction_parts(value)]
    found = [one for one in given if one is not None]
    if len(found) > 1:
        raise MessageError("two parts of systemInstruction have watches; put all into one")
    return parse_watches(found[0], "watches", limits) if found else None


def _instruction_parts(value: Any) -> list[tuple[str, dict[str, Any]]]:
    return parts_of(as_object(value, "systemInstruction"), "systemInstruction")


def _parse_instructions(value: Any, limits: ClientLimits) -> dict[str, Any]:
    """The text of each part is a paragraph."""
    where, most = "systemInstruction", limits.text_characters
    text = value
    if not isinstance(value, str):
        texts = [as_text(part.get("text") or "", f"{at}.text", most=most) for at, part in _instruction_parts(value)]
        text = "\n\n".join(text for text in texts if text)
    return {"instructions": as_text(text, where, most=most)}


def _parse_generation(value: Any, _limits: ClientLimits) -> dict[str, Any]:
    where = "generationConfig"
    given = as_object(value, where)
    tokens, modalities = get(given, "maxOutputTokens"), get(given, "responseModalities")
    ignored = [f"{where}.{name}" for name in _unused(given, ["maxOutputTokens", "responseModalities"])]
    if modalities is not None and _wants_more_than_text(modalities, f"{where}.responseModalities"):
        ignored.append(f"{where}.responseModalities")
    changes: dict[str, Any] = {"ignored": ignored}
    if tokens is not None:
        changes["max_output_tokens"] = _parse_tokens(tokens, f"{where}.maxOutputTokens")
    return changes


def _wants_more_than_text(value: Any, where: str) -> bool:
    wanted = {as_text(one, where, most=_MODALITY_CHARACTERS).upper() for one in as_list(value, where, most=4)}
    if wanted and "TEXT" not in wanted:
        raise MessageError(f"this server answers in text alone; ask for ['TEXT'] in '{where}'", param=where)
    return wanted > {"TEXT"}


def _parse_compression(value: Any, limits: ClientLimits) -> dict[str, Any]:
    where = "contextWindowCompression"
    given = as_object(value, where)
    window = get_object(given, "slidingWindow", where)
    sizes = (
        (get(given, "triggerTokens"), f"{where}.triggerTokens"),
        (get(window, "targetTokens"), f"{where}.slidingWindow.targetTokens"),
    )
    wanted = [_parse_tokens(tokens, at) for tokens, at in sizes if tokens is not None]
    return {"budget_tokens": min(wanted[0], limits.budget_tokens) if wanted else None}


def _parse_resumption(value: Any, _limits: ClientLimits) -> dict[str, Any]:
    return {"resumes": True, "transparent": _flag(value, "sessionResumption", "transparent")}


def _parse_history(value: Any, _limits: ClientLimits) -> dict[str, Any]:
    return {"has_history": _flag(value, "historyConfig", "initialHistoryInClientContent")}


def _parse_realtime(value: Any, _limits: ClientLimits) -> dict[str, Any]:
    return {"interrupts": get(as_object(value, "realtimeInputConfig"), "activityHandling") != "NO_INTERRUPTION"}


def _parse_tokens(value: Any, where: str) -> int:
    """A number, or the text of one, as protobuf's JSON has numbers of 64 bits."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= _MOST_DIGITS:
        value = int(value)
    return as_count(value, where, 1, _HIGHEST)


def _flag(value: Any, where: str, name: str) -> bool:
    flag = get(as_object(value, where), name)
    return flag is not None and as_flag(flag, f"{where}.{name}")


def _unused(given: Mapping[str, Any], known: Sequence[str]) -> Iterator[str]:
    """The first fields that ask for something else than these; an empty object may well do so."""
    names = {*known, *map(snake, known)}
    unused = (key for key, value in given.items() if key not in names and value is not None and value != [])
    return (key[:_NAME_CHARACTERS] for key in islice(unused, _MOST_IGNORED))


_ON_FIELD: Mapping[str, Callable[[Any, ClientLimits], dict[str, Any]]] = {
    "systemInstruction": _parse_instructions,
    "generationConfig": _parse_generation,
    "contextWindowCompression": _parse_compression,
    "sessionResumption": _parse_resumption,
    "historyConfig": _parse_history,
    "realtimeInputConfig": _parse_realtime,
}
