"""Content of the Gemini Live protocol: turns, their parts, and blobs, from clients that write camel or snake case."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from inf_stream.server.protocols.answers import said_earlier
from inf_stream.server.protocols.limits import ClientLimits
from inf_stream.server.protocols.messages import MessageError, as_choice, as_list, as_number, as_object, as_text
from inf_stream.server.protocols.pictures import from_base64

EXTRAS = "inf_stream"
"""The one key of a part's metadata that is ours."""
_MOST_TURNS, _MOST_PARTS, _MOST_BLOBS = 256, 64, 16
_TYPE_CHARACTERS = 128
_LONGEST_MS = 1e15
_ROLES = ("user", "model")
_REFUSED = {
    "fileData": "addresses are not fetched: send the image itself as inlineData",
    "functionCall": "tools are not supported",
    "functionResponse": "tools are not supported",
}


@cache
def snake(name: str) -> str:
    """The name of a field as some clients write it; for names of our own, not for those of strangers."""
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)


def get(given: Mapping[str, Any], name: str) -> Any:
    """The value of a field, by its name in camel case; None if there is none."""
    value = given.get(name)
    return given.get(snake(name)) if value is None else value


def get_object(given: Mapping[str, Any], name: str, where: str) -> dict[str, Any]:
    """The object in a field, by its name in camel case; an empty one if there is none.

    Raises:
        MessageError: it is something else.
    """
    value = get(given, name)
    return as_object({} if value is None else value, f"{where}.{name}")


@dataclass
class Said:
    """What a client says in one message.

    Attributes:
        texts: to be asked.
        images: image files.
        timestamps_ms: stream time of each image, or None for that of its arrival.
        asks: whether an answer is wanted now.
    """

    texts: list[str] = field(default_factory=list)
    images: list[bytes] = field(default_factory=list)
    timestamps_ms: list[float | None] = field(default_factory=list)
    asks: bool = False

    def add_image(self, blob: Any, where: str, limits: ClientLimits, stamp: Any = None) -> None:
        """Take in a blob.

        Raises:
            MessageError: it is no image, or the model does not see.
        """
        given = as_object(blob, where)
        kind = as_text(_needed(given, "mimeType", where), f"{where}.mimeType", most=_TYPE_CHARACTERS).lower()
        if kind.startswith("audio/"):
            raise MessageError("this server takes no audio; send text and images", code="unsupported_content")
        if not kind.startswith("image/"):
            raise MessageError(f"'{where}.mimeType' is '{kind}'; image/jpeg, image/png or image/webp is expected")
        if not limits.sees:
            raise MessageError(f"model '{limits.model}' reads text only; send no images", code="unsupported_content")
        stamp = given.get("timestamp_ms") if stamp is None else stamp
        coded = _needed(given, "data", where)
        if not isinstance(coded, str):
            raise MessageError(f"'{where}.data' is no text in base64", code="invalid_type", param=where)
        self.images.append(from_base64(coded, most_bytes=limits.message_bytes))
        self.timestamps_ms.append(None if stamp is None else as_number(stamp, "timestamp_ms", 0.0, _LONGEST_MS))

    def add_images(self, blobs: Any, where: str, limits: ClientLimits) -> None:
        """Take in several blobs, or None.

        Raises:
            MessageError: see `add_image`.
        """
        for index, blob in enumerate(_listed(blobs, where, _MOST_BLOBS)):
            self.add_image(blob, f"{where}[{index}]", limits)

    def add_turns(self, turns: Any, where: str, limits: ClientLimits) -> None:
        """Take in turns, or None: what the user says and shows, and what the model is to have said.

        Raises:
            MessageError: naming the field.
        """
        for index, one in enumerate(_listed(turns, where, _MOST_TURNS)):
            turn = as_object(one, f"{where}[{index}]")
            role = as_choice(turn.get("role") or "user", f"{where}[{index}].role", _ROLES)
            for at, part in parts_of(turn, f"{where}[{index}]"):
                self._add_part(part, role, at, limits)

    def _add_part(self, part: Mapping[str, Any], role: str, where: str, limits: ClientLimits) -> None:
        for key, why in _REFUSED.items():
            if get(part, key) is not None:
                raise MessageError(f"'{where}' is refused: {why}", code="unsupported_content", param=where)
        if part.get("thought"):
            return
        if part.get("text") is not None:
            text = as_text(part["text"], f"{where}.text", most=limits.text_characters)
            self.texts.append(said_earlier(text) if role == "model" else text)
        blob = get(part, "inlineData")
        if blob is not None:
            if role == "model":
                raise MessageError(f"'{where}' is an image of the model, which makes none", param=where)
            self.add_image(blob, f"{where}.inlineData", limits, extras_of(part, where).get("timestamp_ms"))


def parts_of(content: Mapping[str, Any], where: str) -> list[tuple[str, dict[str, Any]]]:
    """The parts of a turn or an instruction, each with its place.

    Raises:
        MessageError: they are no list of objects.
    """
    parts = _listed(content.get("parts"), f"{where}.parts", _MOST_PARTS)
    return [(f"{where}.parts[{i}]", as_object(part, f"{where}.parts[{i}]")) for i, part in enumerate(parts)]


def extras_of(part: Mapping[str, Any], where: str) -> dict[str, Any]:
    """What the metadata of a part has for this server.

    Raises:
        MessageError: it is no object.
    """
    return get_object(get_object(part, "partMetadata", where), EXTRAS, f"{where}.partMetadata")


def _listed(value: Any, where: str, most: int) -> list[Any]:
    return [] if value is None else as_list(value, where, most=most)


def _needed(given: Mapping[str, Any], name: str, where: str) -> Any:
    value = get(given, name)
    if value is None:
        raise MessageError(f"'{where}.{name}' is missing", code="missing_required_parameter", param=where)
    return value
