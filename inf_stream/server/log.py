"""The server's log: lines of text for people, or one JSON object a line for programs.

A message is a constant; what varies are its fields (`fields`). Nothing of what is asked, answered or shown is logged,
and no key and no handle.
"""

import json
import logging
import re
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any

_FIELDS = "fields"
_SELF_WILLED = ("transformers", "huggingface_hub")
"""Libraries that print their log themselves unless they are told not to."""
_BARE = re.compile(r"[\w.:/+-]+")


def fields(**values: Any) -> dict[str, dict[str, Any]]:
    """For `extra` of a logging call."""
    return {_FIELDS: values}


def log_to_stderr(form: str) -> None:
    """Let this package say what happens, and everything else what is wrong, on standard error.

    Args:
        form: `text` or `json`.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
    logging.getLogger().addHandler(handler)
    for name in _SELF_WILLED:
        logging.getLogger(name).handlers.clear()
        logging.getLogger(name).propagate = True
    logging.getLogger("inf_stream").setLevel(logging.INFO)
    logging.captureWarnings(True)


class TextFormatter(logging.Formatter):
    """`TIME level=INFO msg="session opened" session=sess_1 sessions=1`, and a traceback below."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 the name is logging's
        """As `logging.Formatter` asks for it."""
        words: dict[str, Any] = {"level": record.levelname, "msg": record.message, **_fields_of(record)}
        return " ".join([record.asctime, *(f"{key}={_word(value)}" for key, value in words.items())])


class JsonFormatter(logging.Formatter):
    """`{"time": ..., "level": "INFO", "logger": ..., "message": "session opened", "session": "sess_1", "sessions": 1}`.

    Times are UTC; a traceback is the text of `exception`.
    """

    def format(self, record: logging.LogRecord) -> str:
        """As `logging.Formatter` asks for it."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **_fields_of(record),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


def _fields_of(record: logging.LogRecord) -> Mapping[str, Any]:
    found: Mapping[str, Any] = getattr(record, _FIELDS, {})
    return found


def _word(value: Any) -> str:
    if not isinstance(value, str):
        return json.dumps(value, default=str)
    return value if _BARE.fullmatch(value) else json.dumps(value, ensure_ascii=False)
