"""A difference is only claimed where there is one, and only like is compared with like."""

import json

import compare_runs
import numpy as np
import pytest
from conftest import write_jsonl
from scipy import stats

from domain_tokens import comparison, evaluation
from domain_tokens.errors import InputError


def write_evaluation(folder, name, condition, right, version=1, seed=42, category=None, max_new_tokens=9):
    """An evaluation whose i-th question was answered right where right[i]."""
    rows = []
    for i, is_right in enumerate(right):
        row = {
            "id": f"{name}-{i:05}", "question": f"What is {i} plus {seed}?", "reference": str(i + seed),
            "reply": "…", "extracted": None, "extracted_strict": None, "correct": bool(is_right),
            "correct_strict": bool(is_right), "tokens": 5, "mul_tokens": 0, "finished": True,
        }  # fmt: skip
        rows.append(row | ({"category": category} if category else {}))
    write_jsonl(folder / f"{name}_predictions.jsonl", rows)
    results = {
        "condition": condition, "eval_version": version, "config": {"seed": seed, "max_new_tokens": max_new_tokens},
        "metrics": evaluation.metrics(rows),
    }  # fmt: skip
    (folder / f"{name}_results.json").write_text(json.dumps(results))


def arguments(tmp_path):
    return [
        "--baseline-dir", str(tmp_path / "a"), "--mul-tokens-dir", str(tmp_path / "b"),
        "--output-path", str(tmp_path / "comparison.json"),
    ]  # fmt: skip


@pytest.fixture
def compared(tmp_path, capsys):
    """Compare two GSM8K evaluations; returns the row for GSM8K and what was printed."""

    def compare(baseline, mul_tokens, **settings):
        write_evaluation(tmp_path / "a", "gsm8k", "baseline", baseline)
        write_evaluation(tmp_path / "b", "gsm8k", "mul_tokens", mul_tokens, **settings)
        compare_runs.main(arguments(tmp_path))
        return json.loads((tmp_path / "comparison.json").read_text())["rows"][0], capsys.readouterr().out

    return compare


def test_the_difference_once_announced_as_a_result_is_none(compared):
    # 33 against 27 right answers of 1,319, with 10 questions in common
    right = np.zeros((2, 1319), dtype=bool)
    right[0, :27], right[1, 17:50] = True, True
    row, printed = compared(*right)
    assert (row["baseline"]["correct"], row["mul_tokens"]["correct"]) == (27, 33)
    assert (row["only_baseline_right"], row["only_mul_tokens_right"]) == (17, 23)
    assert row["difference"] == pytest.approx(6 / 1319)
    assert row["interval"][0] < 0 < row["interval"][1]
    assert row["mcnemar_p"] == pytest.approx(stats.binomtest(17, 40).pvalue) == pytest.approx(0.430, abs=1e-3)
    assert row["verdict"] == "no difference shown"
    assert "no difference shown" in printed


@pytest.mark.parametrize(("better", "verdict"), [(1, "mul_tokens better"), (0, "baseline better")])
def test_a_clear_difference_is_named(compared, better, verdict):
    right = [np.arange(400) < (200 if side == better else 120) for side in (0, 1)]
    row, printed = compared(*right)
    assert row["verdict"] == verdict
    assert abs(row["difference"]) == pytest.approx(0.2)
    assert row["mcnemar_p"] < 1e-10
    assert verdict in printed


def test_five_questions_are_not_enough_though_the_bootstrap_alone_would_claim_them(compared):
    row, _ = compared(np.arange(100) < 50, np.arange(100) < 55)
    assert row["interval"][0] > 0
    assert row["mcnemar_p"] == pytest.approx(2 / 2**5)
    assert row["verdict"] == "no difference shown"


def test_equal_answers_are_no_difference(compared):
    row, _ = compared([1, 0, 1], [1, 0, 1])
    assert (row["difference"], row["interval"], row["mcnemar_p"]) == (0, [0, 0], 1)
    assert row["verdict"] == "no difference shown"


def test_accuracies_come_with_wilson_intervals(compared):
    row, _ = compared(np.arange(100) < 50, np.arange(100) < 50)
    # by hand: (50 + 1.96²/2) / (100 + 1.96²) ± 1.96 / (100 + 1.96²) · √(50·50/100 + 1.96²/4)
    assert row["baseline"]["interval"] == pytest.approx([0.4038, 0.5962], abs=1e-4)


def test_the_same_seed_gives_the_same_interval():
    differences = np.array([1] * 30 + [-1] * 20 + [0] * 50)
    low, high = comparison.difference_interval(differences, 1)
    assert (low, high) == comparison.difference_interval(differences, 1)
    spread = 1.96 * differences.std() / 10
    assert (low, high) == pytest.approx((0.1 - spread, 0.1 + spread), abs=0.02)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 2}, "eval_version 1 against 2"),
        ({"seed": 43}, "different questions"),
        ({"max_new_tokens": 5}, "max_new_tokens 9 against 5"),
        ({"condition": "baseline"}, "holds a baseline evaluation, expected mul_tokens"),
        ({"right": [1, 0]}, "different questions"),
        ({"name": "arithmetic", "category": "mul_table"}, r"has no \w+_results.json"),
    ],
)
def test_what_is_not_alike_is_not_compared(tmp_path, change, message):
    settings = {"name": "gsm8k", "condition": "mul_tokens", "right": [1, 0, 1]} | change
    write_evaluation(tmp_path / "a", "gsm8k", "baseline", [1, 0, 1])
    write_evaluation(tmp_path / "b", **settings)
    with pytest.raises(InputError, match=message):
        compare_runs.main(arguments(tmp_path))
    assert not (tmp_path / "comparison.json").exists()


def test_half_written_evaluations_are_refused(tmp_path):
    write_evaluation(tmp_path / "a", "gsm8k", "baseline", [1, 0, 1])
    write_evaluation(tmp_path / "b", "gsm8k", "mul_tokens", [1, 0, 1])
    predictions = tmp_path / "b/gsm8k_predictions.jsonl"
    predictions.write_text("".join(predictions.read_text().splitlines(keepends=True)[:2]))
    with pytest.raises(InputError, match=r"does not match its results \(2 predictions\)"):
        compare_runs.main(arguments(tmp_path))
    predictions.write_text('{"id": 5}\n')
    with pytest.raises(InputError, match="line 1: no proper 'id'"):
        compare_runs.main(arguments(tmp_path))
    predictions.unlink()
    with pytest.raises(InputError, match="is missing"):
        compare_runs.main(arguments(tmp_path))
    with pytest.raises(InputError, match="no complete evaluation"):
        compare_runs.main(
            [*arguments(tmp_path)[:1], str(tmp_path), "--mul-tokens-dir", str(tmp_path), *arguments(tmp_path)[4:]]
        )


def test_probes_are_compared_by_category_and_drawn_as_maps(tmp_path, capsys):
    for folder, condition, wrong in (("a", "baseline", {"mul_table-6x9"}), ("b", "mul_tokens", set())):
        rows = [
            {
                "id": probe.id, "question": probe.text, "reference": probe.reference, "category": probe.category,
                "correct": probe.id not in wrong, "correct_strict": False, "tokens": 3, "mul_tokens": 0,
                "finished": True,
            }
            for probe in evaluation.probes(42)
        ]  # fmt: skip
        write_jsonl(tmp_path / folder / "arithmetic_predictions.jsonl", rows)
        results = {
            "condition": condition,
            "eval_version": 1,
            "config": {"seed": 42},
            "metrics": evaluation.metrics(rows),
        }
        (tmp_path / folder / "arithmetic_results.json").write_text(json.dumps(results))
        table = comparison.table_map(rows)
        assert table.shape == (9, 9)
        assert table[5, 8] == (condition == "mul_tokens")
        assert table.sum() == 81 - len(wrong)
    compare_runs.main(arguments(tmp_path))
    result = json.loads((tmp_path / "comparison.json").read_text())
    assert [(row["name"], row["questions"]) for row in result["rows"]] == [
        ("probes", 281), ("probes: mul_table", 81), ("probes: mul_multidigit", 100), ("probes: addition", 100),
    ]  # fmt: skip
    assert result["rows"][1]["difference"] == pytest.approx(1 / 81)
    assert result["token_usage"]["arithmetic"]["baseline"]["avg_response_tokens"] == 3
    for name in result["plots"]:
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
    assert "probes: mul_table" in capsys.readouterr().out
