"""Values as JSON: keys in their order, numbers that are not finite as the strings that the log has for them."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from qlog.v1.records import non_finite

from client.text import harmless_json


def json_text(value: Any, *, indent: int | None = 2) -> str:
    """The text of a value, in one line where `indent` is None."""
    text = json.dumps(json_ready(value), ensure_ascii=False, allow_nan=False, indent=indent)
    return harmless_json(text)


def json_ready(value: Any) -> Any:
    """The value with strings for the numbers that JSON does not have."""
    match value:
        case float():
            return value if math.isfinite(value) else non_finite(value)
        case str():
            return value
        case Mapping():
            return {name: json_ready(item) for name, item in value.items()}
        case Sequence():
            return [json_ready(item) for item in value]
        case _:
            return value


__all__ = ["json_ready", "json_text"]
