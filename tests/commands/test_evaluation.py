"""The two evaluations: their questions and metrics, and every reply is saved."""

import hashlib
import json
import re
import shutil

import pytest
import run_arithmetic_probes
import run_gsm8k
from conftest import arithmetic_probes, read_jsonl, write_jsonl

from domain_tokens.evaluation.questions import Question, make_probes
from domain_tokens.evaluation.replies import Reply
from domain_tokens.evaluation.scores import metrics
from domain_tokens.evaluation.task import Probes
from domain_tokens.runs.config import load_config
from domain_tokens.runs.config_schema import ProbesEvalConfig
from domain_tokens.runs.errors import InputError

FIELDS = [
    "id", "question", "reference", "reply", "extracted", "extracted_strict", "correct", "correct_strict", "tokens",
    "mul_tokens", "finished",
]  # fmt: skip
METRICS = {
    "accuracy", "accuracy_strict", "correct", "total", "mul_token_count", "mul_tokens_per_response",
    "avg_response_tokens", "finished_rate",
}  # fmt: skip


def test_the_281_probes_are_the_table_and_two_hundred_others_and_none_twice():
    probes = arithmetic_probes()
    assert [p.text for p in probes[:2]] == ["What is 1 times 1?", "What is 1 times 2?"]
    table = [p for p in probes if p.category == "mul_table"]
    assert {(p.text, p.reference) for p in table} == {
        (f"What is {a} times {b}?", str(a * b)) for a in range(1, 10) for b in range(1, 10)
    }
    assert len({p.id for p in probes}) == len({p.text for p in probes}) == len(probes) == 281
    for category, sign, word in (("mul_multidigit", "x", "times"), ("addition", "+", "plus")):
        chosen = [p for p in probes if p.category == category]
        assert len(chosen) == 100
        for probe in chosen:
            a, b = map(int, probe.id.removeprefix(f"{category}-").split(sign))
            assert probe.text == f"What is {a} {word} {b}?"
            assert probe.reference == str(a * b if word == "times" else a + b)
            assert 10 <= a <= 99
            assert 2 <= b <= 9 if word == "times" else 10 <= b <= 99
    assert arithmetic_probes() == probes != arithmetic_probes(seed=43)
    # Published results name these questions, so a change of the draw must not pass unnoticed.
    assert [probes[i].id for i in (80, 81, 82, 180, 181, 182, 280)] == [
        "mul_table-9x9",
        "mul_multidigit-91x8",
        "mul_multidigit-24x4",
        "mul_multidigit-73x9",
        "addition-46+11",
        "addition-90+57",
        "addition-94+61",
    ]


def test_wording_operands_and_number_of_probes_are_those_of_the_config(tmp_path):
    config = {"seed": 1, "batch_size": None, "max_new_tokens": 4, "dtype": "float32", "categories": {}}
    config["categories"]["teens"] = {"text": "{b} and {a}?", "sign": "+", "a": [11, 12], "b": [3, 4], "count": None}
    config["categories"]["big"] = {"text": "{a}·{b}=", "sign": "x", "a": [500, 500], "b": [2, 9], "count": 1}
    path = tmp_path / "probes.yaml"
    path.write_text(json.dumps(config))
    *teens, big = make_probes(load_config(path, ProbesEvalConfig).config)
    assert teens == [
        Question("teens-11+3", "3 and 11?", "14", "teens"),
        Question("teens-11+4", "4 and 11?", "15", "teens"),
        Question("teens-12+3", "3 and 12?", "15", "teens"),
        Question("teens-12+4", "4 and 12?", "16", "teens"),
    ]
    second = int(big.id.removeprefix("big-500x"))
    assert 2 <= second <= 9
    assert big == Question(f"big-500x{second}", f"500·{second}=", str(500 * second), "big")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("text", "What is {a} times b?", r"text is 'What is {a} times b\?', expected a question with {a} and {b}"),
        ("sign", "-", "sign is '-', expected x or \\+"),
        ("a", [9, 1], r"a is \[9, 1\], expected the smallest and the largest"),
        ("a", 5, "a is 5, expected"),
        ("b", [1, 1000], "b is .*from 0 to 999"),
        ("b", [1.5, 2], "b is .*from 0 to 999"),
        ("count", 82, "count is 82, expected 1 to 81 pairs, or null"),
        ("count", 0, "count is 0, expected 1 to 81 pairs, or null"),
    ],
)
def test_a_category_of_probes_that_cannot_be_asked_is_refused(tmp_path, key, value, message):
    category = {"text": "What is {a} times {b}?", "sign": "x", "a": [1, 9], "b": [1, 9], "count": None} | {key: value}
    path = tmp_path / "probes.yaml"
    path.write_text(
        json.dumps(
            {"seed": 1, "batch_size": None, "max_new_tokens": 4, "dtype": "float32", "categories": {"t": category}}
        )
    )
    with pytest.raises(InputError, match=message):
        load_config(path, ProbesEvalConfig)


def test_figures_are_counted_from_the_predictions():
    questions = [
        Question("mul_table-6x9", "What is 6 times 9?", "54", "mul_table"),
        Question("mul_table-7x8", "What is 7 times 8?", "56", "mul_table"),
        Question("addition-10+10", "What is 10 plus 10?", "20", "addition"),
        Question("addition-10+11", "What is 10 plus 11?", "21", "addition"),
    ]
    replies = [
        Reply("<MUL_6_9_54>\n#### <MUL_6_9_54>", 6, 2, True),
        Reply("It is <MUL_7_8_56>", 3, 1, True),
        Reply("10+10=30\n#### 30", 9, 0, True),
        Reply("10+11=21, 21, 21", 10, 0, False),
    ]
    rows = list(map(Probes(None, print).judge, questions, replies))
    assert list(rows[0]) == [*FIELDS, "category"]
    assert (rows[0]["reply"], rows[0]["extracted"]) == ("<MUL_6_9_54>\n#### <MUL_6_9_54>", "54")
    assert [row["correct"] for row in rows] == [True, True, False, True]
    assert [row["correct_strict"] for row in rows] == [True, False, False, False]
    assert metrics(rows) == {
        "accuracy": 0.75,
        "accuracy_strict": 0.25,
        "correct": 3,
        "total": 4,
        "mul_token_count": 3,
        "mul_tokens_per_response": 0.75,
        "avg_response_tokens": 7.0,
        "finished_rate": 0.75,
        "overall_accuracy": 0.75,
        "category_accuracies": {
            "mul_table": {"accuracy": 1.0, "correct": 2, "total": 2},
            "addition": {"accuracy": 0.5, "correct": 1, "total": 2},
        },
    }


def test_the_summary_says_accuracy_replies_categories_and_seconds():
    figures = {
        "accuracy": 0.75, "accuracy_strict": 0.25, "correct": 3, "total": 4, "avg_response_tokens": 7.0,
        "mul_tokens_per_response": 0.5, "finished_rate": 1.0,
    }  # fmt: skip
    figures["category_accuracies"] = {"addition": {"accuracy": 0.5, "correct": 1, "total": 2}}
    assert Probes.summary({"metrics": figures, "runtime": 0.44}).splitlines() == [
        "accuracy: 75.0% (3 of 4), 25.0% if an answer must follow ####",
        "replies: 7.0 tokens on average, 0.50 of them fact tokens; 100.0% ended with end-of-text",
        "  addition:        50.0% (1 of 2)",
        "took 0.4 seconds",
    ]


@pytest.fixture(scope="module")
def evaluated(toy_base, toy_data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluated")
    model = ["--model-path", str(toy_base["mul_tokens"]), "--output-dir", str(folder)]
    run_gsm8k.main([*model, "--dataset-path", str(toy_data / "gsm8k"), "max_new_tokens=8"])
    run_arithmetic_probes.main([*model, "max_new_tokens=4"])
    return folder


@pytest.mark.parametrize(("name", "total"), [("gsm8k", 20), ("arithmetic", 281)])
def test_an_evaluation_writes_one_line_per_question_in_order(evaluated, toy_data, name, total):
    results = json.loads((evaluated / f"{name}_results.json").read_text())
    rows = read_jsonl(evaluated / f"{name}_predictions.jsonl")
    assert len(rows) == results["metrics"]["total"] == total
    assert results["condition"] == "mul_tokens"
    assert results["eval_version"] == 4
    assert set(results["metrics"]) >= METRICS
    assert results["environment"].keys() >= {"commit", "dirty", "libraries", "device"}
    assert results["model_path"].endswith("/mul_tokens")
    for row in rows:
        assert set(FIELDS) <= set(row)
        assert row["tokens"] <= 8
    if name == "gsm8k":
        test = read_jsonl(toy_data / "gsm8k/test.jsonl")
        assert [row["question"] for row in rows] == [row["question"] for row in test]
        assert [row["reference"] for row in rows] == [row["answer"].split("#### ")[1] for row in test]
        assert rows[3]["id"] == "gsm8k-00003"


def test_a_finished_evaluation_is_kept_unless_told_otherwise(evaluated, toy_base, toy_data, capsys):
    arguments = ["--model-path", str(toy_base["mul_tokens"]), "--output-dir", str(evaluated), "max_new_tokens=4"]
    with pytest.raises(InputError, match="already holds arithmetic_results.json; --overwrite"):
        run_arithmetic_probes.main(arguments)
    run_arithmetic_probes.main([*arguments, "--resume"])
    assert "holds this evaluation already" in capsys.readouterr().out
    with pytest.raises(InputError, match="config.seed 42, now it is 7"):
        run_arithmetic_probes.main([*arguments, "--resume", "--seed", "7"])


def test_a_finished_evaluation_of_other_rows_is_not_taken_for_this_one(toy_base, tmp_path, capsys):
    path = write_jsonl(tmp_path / "test.jsonl", [{"question": "1?", "answer": "#### 1"}])
    model = ["--model-path", str(toy_base["baseline"]), "--output-dir", str(tmp_path / "out"), "max_new_tokens=2"]
    arguments = [*model, "--dataset-path", str(path), "--resume"]
    run_gsm8k.main(arguments)
    row = path.read_bytes()
    results = json.loads((tmp_path / "out/gsm8k_results.json").read_text())
    assert results["dataset_sha256"] == hashlib.sha256(row).hexdigest()
    write_jsonl(path, [{"question": "2?", "answer": "#### 2"}, {"question": "1?", "answer": "#### 1"}])
    with pytest.raises(InputError, match="was made with dataset_sha256 .* --overwrite replaces it"):
        run_gsm8k.main(arguments)
    for same in (lambda: path.write_bytes(row), path.unlink):  # rows that are gone cannot be other ones
        same()
        run_gsm8k.main(arguments)
        assert "holds this evaluation already" in capsys.readouterr().out


def test_a_prompt_that_does_not_fit_is_refused_not_cut(toy_base, tmp_path):
    rows = [{"question": "1 " * 600, "answer": "#### 1"}]
    path = write_jsonl(tmp_path / "test.jsonl", rows)
    model = ["--model-path", str(toy_base["baseline"]), "--output-dir", str(tmp_path / "out")]
    with pytest.raises(InputError, match=r"the longest prompt has 12\d\d tokens .* the model has 1024 positions"):
        run_gsm8k.main([*model, "--dataset-path", str(path)])


def test_a_row_that_cannot_be_used_is_reported_and_the_others_keep_their_names(toy_base, tmp_path, capsys):
    rows = [{"question": "x?", "answer": "1"}] + [{"question": f"{i}?", "answer": "#### 1"} for i in range(100)]
    path = write_jsonl(tmp_path / "test.jsonl", rows)
    model = ["--model-path", str(toy_base["baseline"]), "--output-dir", str(tmp_path / "out"), "max_new_tokens=2"]
    run_gsm8k.main([*model, "--dataset-path", str(path)])
    printed = capsys.readouterr().out
    assert "unusable rows left out: 1 × answer without ####, first in line 1" in printed
    assert re.fullmatch(r"took \d+\.\d seconds", printed.splitlines()[-1])
    predictions = read_jsonl(tmp_path / "out/gsm8k_predictions.jsonl")
    assert len(predictions) == 100
    assert (predictions[0]["id"], predictions[0]["question"]) == ("gsm8k-00001", "0?")


@pytest.mark.parametrize("answer", ["#### none", "#### 1/0", "#### " + "9" * 400])
def test_a_reference_that_is_no_number_stops_the_evaluation_before_it_starts(toy_base, tmp_path, answer):
    path = write_jsonl(tmp_path / "test.jsonl", [{"question": "x?", "answer": answer}])
    model = ["--model-path", str(toy_base["baseline"]), "--output-dir", str(tmp_path / "out")]
    with pytest.raises(InputError, match="line 1: no number after ####"):
        run_gsm8k.main([*model, "--dataset-path", str(path)])


def test_folders_that_do_not_say_their_condition_need_the_flag(toy_base, toy_data, tmp_path):
    model = shutil.copytree(toy_base["baseline"], tmp_path / "model")
    (model / "domain_tokens.json").unlink()
    arguments = ["--model-path", str(model), "--output-dir", str(tmp_path / "out"), "max_new_tokens=2"]
    with pytest.raises(InputError, match="give --condition"):
        run_arithmetic_probes.main(arguments)
    run_arithmetic_probes.main([*arguments, "--condition", "mul_tokens"])
    assert json.loads((tmp_path / "out/arithmetic_results.json").read_text())["condition"] == "mul_tokens"
