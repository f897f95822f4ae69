"""What a model folder says of itself: its condition, and every stage the model went through."""

import json
from pathlib import Path
from typing import Any

from domain_tokens.conditions import CONDITION_NAMES, CONDITIONS
from domain_tokens.runs.errors import InputError
from domain_tokens.runs.files import read_json, shown_source
from domain_tokens.runs.names import RECORD_NAME


def read_record(folder: Path, wanted: str | None) -> tuple[str, list[dict[str, Any]]]:
    """Return condition and lineage of a model folder.

    wanted: the condition, where the folder has no record or its record allows several; None: the record's own.
    """
    if not (folder / RECORD_NAME).is_file():
        if wanted is None:
            raise InputError(f"{folder} does not say its condition; give --condition {CONDITION_NAMES}")
        return wanted, [{"stage": "start", "source": shown_source(str(folder))}]
    record = read_json(folder / RECORD_NAME)
    condition, lineage = record.get("condition"), record.get("lineage")
    if condition not in CONDITIONS:
        raise InputError(f"{folder / RECORD_NAME} has condition {json.dumps(condition)}, expected {CONDITION_NAMES}")
    stages = [entry.get("stage") for entry in lineage if isinstance(entry, dict)] if isinstance(lineage, list) else []
    if not stages or len(stages) < len(lineage) or not all(isinstance(stage, str) for stage in stages):
        raise InputError(f"{folder / RECORD_NAME} has no lineage of stages, each with its name; make the model again")
    may_start = record.get("may_start")
    if isinstance(may_start, list) and wanted in may_start:
        return wanted, lineage
    if wanted not in (None, condition):
        conditions = " or ".join(map(str, may_start)) if isinstance(may_start, list) else condition
        article = "an" if conditions[0] in "aeiou" else "a"
        raise InputError(
            f"--condition {wanted} contradicts {folder}, which is {article} {conditions} model; "
            f"give --condition {conditions}, or another model"
        )
    return condition, lineage


def history_of_source(source: str) -> list[dict[str, Any]]:
    """Return the lineage of a source that is a start model itself, [] for any other.

    Raises InputError for a model that was trained here: what it learned would pass for the start model's.
    """
    folder = Path(source)
    if not (folder / RECORD_NAME).is_file():
        return []
    condition, lineage = read_record(folder, None)
    if trained := [entry for entry in lineage if "dataset" in entry]:
        raise InputError(
            f"source {source} is a {condition} model after {trained[-1]['stage']}, not a model to start from; "
            "give the one it was trained from, or one of other makers"
        )
    return lineage
