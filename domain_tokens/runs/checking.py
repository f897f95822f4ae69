"""The schemas of results and predictions, checked wherever one is read."""

import json
from pathlib import Path
from typing import Any

from domain_tokens.runs.errors import InputError
from domain_tokens.runs.files import read_json, read_jsonl

# Types by key. A key that ends in ? may be missing or null. [x] is a list of any length, {str: x} an object with
# any keys.
_RUN = {"weights?": str, "environment?": {"commit?": str, "dirty?": bool, "device?": str, "libraries?": {str: str}}}
_CURVE = [[float, float]]  # step and loss
TRAINING = _RUN | {
    "seed?": int, "train_loss": float, "eval_loss?": float, "steps": int, "total_train_samples": int,
    "train_runtime": float, "injected_mul_tokens?": int, "injected_by_fact?": {str: int}, "config?": dict,
    "loss_curves?": {"train": _CURVE, "validation": _CURVE},
}  # fmt: skip
EVALUATION = _RUN | {
    "condition": str, "eval_version": int, "lineage?": [{"source?": str, "seed?": int}], "runtime?": float,
    "config": {"dataset?": str, "max_new_tokens?": int, "dtype?": str},
    "metrics": {"accuracy": float, "correct": int, "total": int, "mul_token_count": int},
}  # fmt: skip
PROGRESS = {"global_step": int, "max_steps": int}  # of a checkpoint's trainer_state.json
PREDICTION = {
    "id": str, "question": str, "reference": str, "reply": str, "extracted?": str, "extracted_strict?": str,
    "correct": bool, "correct_strict": bool, "tokens": int, "mul_tokens": int, "finished": bool, "category?": str,
}  # fmt: skip

_KINDS = {
    str: "text", bool: "true or false", int: "a count", float: "a number", list: "a list", dict: "an object",
}  # fmt: skip
_LARGEST = 10**15  # numbers beyond it are no counts, steps or seconds, and break the arithmetic


def read_results(path: Path, schema: dict[Any, Any]) -> dict[str, Any]:
    """Read a results file. InputError if it does not follow the schema."""
    results = read_json(path)
    if fault := _fault(results, schema):
        raise InputError(f"{path}: {fault}; run it again with --overwrite")
    return results


def read_predictions(path: Path) -> list[dict[str, Any]]:
    """Read the predictions of an evaluation. InputError if one does not follow the schema, or has another's id."""
    seen: set[str] = set()
    rows = read_jsonl(path)
    for number, row in enumerate(rows, start=1):
        fault = _fault(row, PREDICTION) or (f"id {row['id']!r} is there already" if row["id"] in seen else None)
        if fault:
            raise InputError(f"{path} line {number}: {fault}; run the evaluation again with --overwrite")
        seen.add(row["id"])
    return rows


def _fault(value: Any, schema: Any, place: str = "it") -> str | None:
    """Return what is wrong with a value, None for nothing."""
    if isinstance(schema, dict) and isinstance(value, dict):
        optional = {key for key in schema if key is not str and key.endswith("?") and value.get(key[:-1]) is None}
        kinds = {key.removesuffix("?"): schema[key] for key in schema if key is not str and key not in optional}
        kinds |= dict.fromkeys(value, schema[str]) if str in schema else {}
        parts = [(value.get(key), kind, f"{place}.{key}".removeprefix("it.")) for key, kind in kinds.items()]
    elif isinstance(schema, list) and isinstance(value, list):
        kinds = schema if len(schema) > 1 else schema * len(value)
        if len(kinds) != len(value):
            return f"{place} has {len(value)} parts, expected {len(kinds)}"
        parts = [(each, kind, f"{place}[{i}]") for i, (each, kind) in enumerate(zip(value, kinds, strict=True))]
    elif _fits(value, schema):
        return None
    else:
        kind = _KINDS[schema if isinstance(schema, type) else type(schema)]
        return f"{place} is {'missing' if value is None else json.dumps(value)[:40]}, expected {kind}"
    return next((fault for part in parts if (fault := _fault(*part))), None)


def _fits(value: Any, kind: type) -> bool:
    if kind in (int, float):  # NaN compares as False
        return type(value) in (int, kind) and (0 if kind is int else -_LARGEST) <= value < _LARGEST
    try:
        json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
    except ValueError:  # NaN, or half of a surrogate pair, which no file can hold
        return False
    return type(value) is kind
