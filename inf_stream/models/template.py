"""The turns of an endless conversation, read off the model's own chat template.

A chat template renders a whole conversation; a stream needs the pieces between the contents, once each:

    opening | user content | ask | answer | again | user content | ask | answer | again ...

They are found by rendering a conversation whose contents are marks and cutting the text at the marks.
"""

from dataclasses import dataclass
from typing import Any

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

_SYSTEM, _FIRST, _REPLY, _SECOND = "@system@", "@first@", "@reply@", "@second@"


@dataclass(frozen=True, slots=True)
class TurnTemplate:
    """Text between the contents of a conversation.

    Attributes:
        opening: from the stream's start to the first user content, system prompt included.
        ask: between user content and the model's answer.
        again: between an answer and the next user content; it begins with what ends an answer.
    """

    opening: str
    ask: str
    again: str


PLAIN = TurnTemplate(opening="", ask="\nAnswer:", again="\n\n")
"""For base models, which have no chat template."""


def turn_template(tokenizer: PreTrainedTokenizerBase, system_prompt: str) -> TurnTemplate:
    """The model's turns with this system prompt; empty leaves the template's own default.

    A template that takes no system role gets the prompt at the head of the first user content, as its own
    documentation recommends; a model without a template gets plain text.
    """
    if not getattr(tokenizer, "chat_template", None):
        head = f"{system_prompt}\n\n" if system_prompt else ""
        return TurnTemplate(opening=head, ask=PLAIN.ask, again=PLAIN.again)
    for as_parts in (False, True):
        for separate_system in (True, False) if system_prompt else (False,):
            found = _cut(tokenizer, as_parts, separate_system)
            if found is None:
                continue
            if separate_system:
                return TurnTemplate(found.opening.replace(_SYSTEM, system_prompt), found.ask, found.again)
            head = f"{system_prompt}\n\n" if system_prompt else ""
            return TurnTemplate(found.opening + head, found.ask, found.again)
    return TurnTemplate(opening=f"{system_prompt}\n\n" if system_prompt else "", ask=PLAIN.ask, again=PLAIN.again)


def _cut(tokenizer: PreTrainedTokenizerBase, as_parts: bool, with_system: bool) -> TurnTemplate | None:
    def message(role: str, text: str) -> dict[str, Any]:
        return {"role": role, "content": [{"type": "text", "text": text}] if as_parts else text}

    system = [message("system", _SYSTEM)] if with_system else []
    first, reply, second = message("user", _FIRST), message("assistant", _REPLY), message("user", _SECOND)
    try:
        asked = _render(tokenizer, [*system, first], add_generation_prompt=True)
        # Without the system prompt, which some templates repeat before the last user content.
        whole = _render(tokenizer, [first, reply, second], add_generation_prompt=False)
    except (TemplateError, TypeError, KeyError, IndexError, ValueError):
        return None
    parts = _parted(asked, _SYSTEM, _FIRST) if with_system else _parted(asked, _FIRST)
    turns = _parted(whole, _FIRST, _REPLY, _SECOND)
    if parts is None or turns is None:
        return None
    return TurnTemplate(opening=_SYSTEM.join(parts[:-1]), ask=parts[-1], again=turns[2])


def _parted(text: str, *marks: str) -> list[str] | None:
    """The text between these marks, or None unless each stands in it once and in this order.

    None also for a template that takes no lists of parts and prints one as Python would.
    """
    if any(text.count(mark) != 1 for mark in marks) or "'text':" in text:
        return None
    parts = []
    for mark in marks:
        before, found, text = text.partition(mark)
        if not found:
            return None
        parts.append(before)
    return [*parts, text]


def _render(tokenizer: PreTrainedTokenizerBase, messages: list[dict[str, Any]], *, add_generation_prompt: bool) -> str:
    text = tokenizer.apply_chat_template(
        messages, tokenize=False, add_generation_prompt=add_generation_prompt, enable_thinking=False
    )
    assert isinstance(text, str), "asked for text"
    return text
