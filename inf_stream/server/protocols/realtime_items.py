"""Items of a Realtime conversation: what a client says, and what of it can still be asked for."""

import secrets
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from inf_stream.base.state import State
from inf_stream.server.protocols.answers import said_earlier
from inf_stream.server.protocols.image_urls import read_image_url
from inf_stream.server.protocols.limits import ClientLimits
from inf_stream.server.protocols.messages import (
    MessageError,
    as_choice,
    as_list,
    as_number,
    as_object,
    as_text,
    required,
)
from inf_stream.server.protocols.pictures import Image, PictureError

MOST_PARTS = 16
_MOST_ITEMS = 512
_MOST_CHARACTERS = 1 << 18
_ID_CHARACTERS = 128
_LONGEST_MS = 1e15
_PARTS = {"user": ("input_text", "input_image"), "system": ("input_text",), "assistant": ("output_text", "text")}


@dataclass
class Item:
    """A message of the conversation.

    Attributes:
        id: given by the client or made here.
        role: user, system or assistant.
        texts: what it says.
        images: image files or their addresses, until they are taken.
        timestamps_ms: stream time of each image, or None for that of its arrival.
        parts: the content as told to clients, without the images themselves.
        status: as told to clients.
    """

    id: str
    role: str
    texts: list[str] = field(default_factory=list)
    images: list[Image] = field(default_factory=list)
    timestamps_ms: list[float | None] = field(default_factory=list)
    parts: list[dict[str, Any]] = field(default_factory=list)
    status: str = "completed"

    def kept(self) -> dict[str, Any]:
        """As `restored` takes it; without the images themselves, which are in the memory or gone."""
        return {"id": self.id, "role": self.role, "texts": self.texts, "parts": self.parts, "status": self.status}

    @classmethod
    def restored(cls, kept: dict[str, Any]) -> "Item":
        """What `kept` was given of.

        Raises:
            StateError: it is nothing such.
        """
        state = State(facts=kept)
        texts, parts = state.fact("texts", list), state.fact("parts", list)
        return cls(state.fact("id", str), state.fact("role", str), texts, parts=parts, status=state.fact("status", str))

    @property
    def text(self) -> str:
        """All of its texts."""
        return "\n".join(self.texts)

    def as_object(self) -> dict[str, Any]:
        """As the protocol has it; images are named, not sent back."""
        return {
            "id": self.id,
            "object": "realtime.item",
            "type": "message",
            "status": self.status,
            "role": self.role,
            "content": [dict(part) for part in self.parts],
        }

    def as_context(self) -> str:
        """How the model is told what it says."""
        return said_earlier(self.text) if self.role == "assistant" else self.text


def new_id(prefix: str) -> str:
    """An id nobody guesses."""
    return f"{prefix}_{secrets.token_hex(10)}"


def parse_item(value: Any, where: str, limits: ClientLimits) -> Item:
    """An item as a client writes it.

    Raises:
        MessageError: naming the field; an image that is neither a data URI nor an allowed address among others.
    """
    given = as_object(value, where)
    kind = required(given, "type", where)
    if kind != "message":
        raise MessageError(
            f"'{where}.type' is another than 'message'; tools and their results are not supported",
            code="unsupported_item",
            param=f"{where}.type",
        )
    role = as_choice(given.get("role"), f"{where}.role", list(_PARTS))
    item = Item(_parse_id(given.get("id"), f"{where}.id"), role)
    for index, part in enumerate(as_list(required(given, "content", where), f"{where}.content", most=MOST_PARTS)):
        _add_part(item, as_object(part, f"{where}.content[{index}]"), f"{where}.content[{index}]", limits)
    if len(item.text) > limits.text_characters:
        as_text(item.text, f"{where}.content", most=limits.text_characters)
    return item


def assistant_item(item_id: str, text: str, status: str) -> Item:
    """What the model said."""
    return Item(item_id, "assistant", [text], parts=[{"type": "output_text", "text": text}], status=status)


class ItemStore:
    """The latest items, so many that their memory is bounded; older ones are forgotten without a word."""

    def __init__(self) -> None:
        self._items: OrderedDict[str, Item] = OrderedDict()
        self._characters = 0

    @property
    def latest_id(self) -> str | None:
        """Of the item added last."""
        return next(reversed(self._items), None)

    def __iter__(self) -> Iterator[Item]:
        return iter(self._items.values())

    def __contains__(self, item_id: str) -> bool:
        return item_id in self._items

    def add(self, item: Item) -> None:
        """Add an item at the end; its images are let go."""
        item.images = []
        self._items[item.id] = item
        self._characters += len(item.text)
        while len(self._items) > _MOST_ITEMS or self._characters > _MOST_CHARACTERS:
            self._forget(next(iter(self._items)))

    def get(self, item_id: str, param: str = "item_id") -> Item:
        """An item that is still known.

        Raises:
            MessageError: it is not.
        """
        if item_id not in self._items:
            raise MessageError(f"item '{item_id}' is unknown or forgotten", code="item_not_found", param=param)
        return self._items[item_id]

    def remove(self, item_id: str) -> None:
        """Forget an item.

        Raises:
            MessageError: it is unknown.
        """
        self.get(item_id)
        self._forget(item_id)

    def _forget(self, item_id: str) -> None:
        self._characters -= len(self._items.pop(item_id).text)


def join_texts(items: Sequence[Item]) -> str:
    """What several items say."""
    return "\n".join(item.as_context() for item in items if item.texts)


def _parse_id(value: Any, param: str) -> str:
    if value is None:
        return new_id("item")
    if not value:
        raise MessageError(f"'{param}' is empty; leave it out to have one made", param=param)
    return as_text(value, param, most=_ID_CHARACTERS)


def _add_part(item: Item, part: dict[str, Any], where: str, limits: ClientLimits) -> None:
    kind = as_choice(part.get("type"), f"{where}.type", [*_PARTS[item.role], "input_audio"])
    if kind == "input_audio":
        raise MessageError(f"'{where}' is audio; send text", code="unsupported_content", param=where)
    if kind != "input_image":
        text = as_text(required(part, "text", where), f"{where}.text", most=limits.text_characters)
        item.texts.append(text)
        item.parts.append({"type": "output_text" if item.role == "assistant" else "input_text", "text": text})
        return
    if not limits.sees:
        raise MessageError(
            f"'{where}' is an image, but model '{limits.model}' reads text only",
            code="unsupported_content",
            param=where,
        )
    stamp = part.get("timestamp_ms")
    stamp = None if stamp is None else as_number(stamp, f"{where}.timestamp_ms", 0.0, _LONGEST_MS)
    uri = required(part, "image_url", where)
    if not isinstance(uri, str):
        raise PictureError("image_url is no text", code="invalid_type")
    item.images.append(read_image_url(uri, limits.addresses, most_bytes=limits.message_bytes))
    item.timestamps_ms.append(stamp)
    item.parts.append({"type": "input_image", "detail": _parse_detail(part.get("detail"), where)})


def _parse_detail(value: Any, where: str) -> str:
    return "auto" if value is None else as_choice(value, f"{where}.detail", ["auto", "low", "high"])
