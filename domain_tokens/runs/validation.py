"""Reading what `results_schema.py` describes: whatever is read was checked first, and a fault is told in words."""

import json
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from domain_tokens.runs.errors import InputError, short_repr
from domain_tokens.runs.files import read_json, read_jsonl
from domain_tokens.runs.results_schema import Prediction

# How a person says what pydantic misses; its other messages begin with "Input should be".
_EXPECTED = {
    "int_type": "a count", "float_type": "a number", "string_type": "text", "bool_type": "true or false",
    "dict_type": "an object", "list_type": "a list", "too_short": "two numbers", "too_long": "two numbers",
}  # fmt: skip


def read_results(path: Path, schema: type) -> dict[str, Any]:
    """Return what a results file holds. InputError names the first field that its schema does not allow."""
    results = read_json(path)
    if fault := _find_fault([results], schema):
        raise InputError(f"{path}: {fault[1]}; run it again with --overwrite")
    return results


def read_predictions(path: Path, kind: type = Prediction) -> list[dict[str, Any]]:
    """Return the rows of a predictions file. InputError names the first line and field that `kind` does not allow."""
    rows = read_jsonl(path)
    fault = _find_fault(rows, kind)
    seen: dict[str, int] = {}
    for number, row in enumerate(() if fault else rows):
        if fault is None and seen.setdefault(row["id"], number) != number:
            fault = number, f"id {short_repr(row['id'])} is there already"
    if fault:
        raise InputError(f"{path} line {fault[0] + 1}: {fault[1]}; run the evaluation again with --overwrite")
    return rows


@cache
def _adapter(schema: type) -> TypeAdapter:
    return TypeAdapter(list[schema])


def _find_fault(values: list[Any], schema: type) -> tuple[int, str] | None:
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
