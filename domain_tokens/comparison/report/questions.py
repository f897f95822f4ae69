"""The questions with every reply, as the data of the page's script."""

import base64
import gzip
import json
from pathlib import Path
from typing import Any

from domain_tokens.comparison.formats import EVALUATION_NAMES
from domain_tokens.comparison.reading import Evaluation, Runs
from domain_tokens.comparison.report.collect import Experiment
from domain_tokens.data.conversations import UnusableRow, gsm8k_conversation
from domain_tokens.data.readers import open_rows
from domain_tokens.evaluation.questions import gsm8k_id
from domain_tokens.facts import FACT_PATTERN, FACT_TOKENS, show_facts
from domain_tokens.runs.errors import InputError
from domain_tokens.runs.names import GSM8K_EVAL

LONGEST_TEXT = 500_000  # characters of JSON that the page carries as they are


def questions_data(experiment: Experiment, seeds: int, room: int) -> tuple[str, str, int]:
    """Return the content of a <script> element, in which nothing can end the element, its type, and of how many seeds.

    That is JSON, or from a few hundred thousand characters on gzipped JSON in base64: replies of many seeds are much
    alike. It holds the first seeds, as many as fit and at least one.

    seeds: how many there are. room: bytes for the content.
    """
    content, kind = _content(experiment, seeds)
    while (size := len(content.encode())) > room and seeds > 1:
        seeds = max(1, min(seeds - 1, seeds * room // size))
        content, kind = _content(experiment, seeds)
    return content, kind, seeds


def _content(experiment: Experiment, seeds: int) -> tuple[str, str]:
    value = {
        "evaluations": [_evaluation(name, groups, seeds) for name, groups in experiment.replies.items()],
        "conditions": experiment.conditions,
        "facts": {token: show_facts(token) for token in FACT_TOKENS},
        "pattern": FACT_PATTERN.pattern,
    }
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    if len(text) > LONGEST_TEXT:
        return base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode(), "application/gzip"
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"), "application/json"


def _evaluation(name: str, groups: Runs, seeds: int) -> dict[str, Any]:
    """Return the questions and, for each of the first seeds, what the groups replied."""
    first = next(iter(groups.values()))[0]
    solutions = _solutions(first) if name == GSM8K_EVAL else {}
    return {
        "name": EVALUATION_NAMES[name],
        "questions": [
            {"id": row["id"], "question": row["question"], "reference": row["reference"]}
            | ({"solution": solutions[row["id"]]} if row["id"] in solutions else {})
            for row in first.predictions
        ],
        "seeds": [
            {
                "seed": evaluations[0].seed,
                "replies": [
                    [_reply(row) for row in rows]
                    for rows in zip(*(evaluation.predictions for evaluation in evaluations), strict=True)
                ],
            }
            for evaluations in [*zip(*groups.values(), strict=True)][:seeds]
        ],
    }


def _reply(row: dict[str, Any]) -> dict[str, Any]:
    names = {"reply": "reply", "right": "correct", "read": "extracted", "tokens": "tokens", "facts": "mul_tokens"}
    return {name: row.get(key) for name, key in names.items()}


def _solutions(evaluation: Evaluation) -> dict[str, str]:
    """Return the reference solutions by question id, from the dataset if it still lies where the config says."""
    dataset = evaluation.results["config"].get("dataset")
    if dataset is None or not Path(dataset).expanduser().exists():
        return {}
    asked, solutions = {row["id"]: row["question"] for row in evaluation.predictions}, {}
    try:
        rows = open_rows(dataset, None, "test")
    except InputError:  # something else by now
        return {}
    for i in range(len(rows)):
        try:
            question, answer = gsm8k_conversation(rows.read(i))
        except UnusableRow:
            continue
        if asked.get(gsm8k_id(i)) == question["content"]:
            solutions[gsm8k_id(i)] = answer["content"]
    return solutions
