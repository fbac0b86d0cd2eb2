"""What is compared: a policy with its options, and what an archive gives back."""

import json
from typing import Any


def parse_policy(word: str) -> tuple[str, dict[str, Any]]:
    """``name:key=value,key=value`` as a name and options."""
    name, _, rest = word.partition(":")
    pairs = (pair.partition("=") for pair in rest.split(",") if pair)
    return name, {key: json.loads(value) for key, _, value in pairs}
