"""Finding what in a value its schema does not allow, in words for people."""

import json
from functools import cache
from typing import Any

from pydantic import TypeAdapter, ValidationError

from domain_tokens.runs.errors import short_repr

# How a person says what pydantic misses; its other messages begin with "Input should be".
_EXPECTED = {
    "int_type": "a count", "float_type": "a number", "string_type": "text", "bool_type": "true or false",
    "dict_type": "an object", "list_type": "a list", "too_short": "two numbers", "too_long": "two numbers",
}  # fmt: skip


@cache
def _adapter(schema: type) -> TypeAdapter:
    return TypeAdapter(list[schema])


def find_fault(values: list[Any], schema: type) -> tuple[int, str] | None:
    """Return the index of the first value that the schema does not allow, and what is wrong with it."""
    try:
        _adapter(schema).validate_python(values, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        index, *place = first["loc"]
        field = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in place).removeprefix(".") or "it"
        if first["type"] == "missing":
            return index, f"{field} is missing"
        expected = _EXPECTED.get(first["type"]) or first["msg"].removeprefix("Input should be ")
        return index, f"{field} is {short_repr(first['input'])}, expected {expected}"
    for index, value in enumerate(values):
        try:
            json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
        except ValueError:
            return index, "it holds NaN or half a character"
    return None
