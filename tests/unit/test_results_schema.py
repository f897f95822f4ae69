"""Results and predictions are read as their schema says, or refused with the file, the line and the field."""

import json

import pytest

from domain_tokens.runs.errors import InputError
from domain_tokens.runs.results_schema import CheckpointState, EvaluationResults, TrainingResults
from domain_tokens.runs.validation import read_predictions, read_results

TRAINED = {"train_loss": 1.5, "steps": 100, "total_train_samples": 1600, "train_runtime": 90}
EVALUATED = {
    "condition": "baseline", "eval_version": 2, "config": {"max_new_tokens": 256},
    "metrics": {"accuracy": 0.5, "correct": 1, "total": 2, "mul_token_count": 0},
}  # fmt: skip
ANSWERED = {
    "id": "gsm8k-00000", "question": "What is 6 times 9?", "reference": "54", "reply": "54", "correct": True,
    "correct_strict": False, "tokens": 2, "mul_tokens": 0, "finished": True,
}  # fmt: skip


def write(path, value):
    path.write_text(json.dumps(value))
    return path


@pytest.mark.parametrize(
    ("schema", "value"),
    [(TrainingResults, TRAINED), (EvaluationResults, EVALUATED), (CheckpointState, {"global_step": 1, "max_steps": 2})],
)
def test_results_come_back_as_they_were_written_unknown_keys_included(tmp_path, schema, value):
    more = value | {"of a later version": [1, {"x": None}]}
    assert read_results(write(tmp_path / "r.json", more), schema) == more


@pytest.mark.parametrize(
    ("schema", "value", "says"),
    [
        (TrainingResults, {}, "train_loss is missing"),
        (TrainingResults, TRAINED | {"train_loss": float("nan")}, "train_loss is nan, expected a finite number"),
        (TrainingResults, TRAINED | {"train_loss": 10**400}, "train_loss is 1000"),
        (TrainingResults, TRAINED | {"steps": -1}, "steps is -1, expected greater than or equal to 0"),
        (TrainingResults, TRAINED | {"steps": 1.5}, "steps is 1.5, expected a count"),
        (TrainingResults, TRAINED | {"steps": True}, "steps is True, expected a count"),
        (TrainingResults, TRAINED | {"loss_curves": {"train": [[1, "x"]], "validation": []}},
         r"loss_curves.train\[0\]\[1\] is 'x', expected a number"),
        (TrainingResults, TRAINED | {"loss_curves": {"train": [[1]], "validation": []}}, "expected two numbers"),
        (TrainingResults, TRAINED | {"injected_by_fact": {"<MUL_1_1_1>": "1"}}, "injected_by_fact.<MUL_1_1_1> is '1'"),
        (TrainingResults, TRAINED | {"config": {"data": float("inf")}}, "holds NaN or half a character"),
        (TrainingResults, TRAINED | {"config": {"data": "\ud83d"}}, "holds NaN or half a character"),
        (TrainingResults, TRAINED | {"environment": {"device": 5}}, "environment.device is 5, expected text"),
        (EvaluationResults, EVALUATED | {"metrics": []}, r"metrics is \[\], expected an object"),
        (EvaluationResults, EVALUATED | {"metrics": EVALUATED["metrics"] | {"accuracy": 1.5}},
         "metrics.accuracy is 1.5, expected less than"),
        (EvaluationResults, EVALUATED | {"lineage": [{}]}, r"lineage\[0\].stage is missing"),
        (CheckpointState, {"global_step": None, "max_steps": 5}, "global_step is None, expected a count"),
    ],
)  # fmt: skip
def test_results_that_are_not_as_the_schema_says_are_refused_with_the_field(tmp_path, schema, value, says):
    path = write(tmp_path / "r.json", value)
    with pytest.raises(InputError, match=f"{path}: .*{says}.*; run it again with --overwrite"):
        read_results(path, schema)


@pytest.mark.parametrize(
    ("row", "says"),
    [
        (5, "it is 5, expected an object"),
        (ANSWERED | {"id": "b", "correct": "yes"}, "correct is 'yes', expected true or false"),
        (ANSWERED | {"id": "b", "tokens": None}, "tokens is None, expected a count"),
        (ANSWERED | {"id": "b", "reply": "\ud83d"}, "it holds NaN or half a character"),
        (ANSWERED, "id 'gsm8k-00000' is there already"),
        ({"id": "b"}, "question is missing"),
    ],
)
def test_predictions_are_refused_with_line_and_field(tmp_path, row, says):
    path = tmp_path / "p.jsonl"
    path.write_text(json.dumps(ANSWERED) + "\n" + json.dumps(row) + "\n")
    with pytest.raises(InputError, match=f"{path} line 2: {says}; run the evaluation again with --overwrite"):
        read_predictions(path)
