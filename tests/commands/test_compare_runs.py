"""A difference is only claimed where there is one, and only like is compared with like."""

import json

import compare_runs
import numpy as np
import pytest
from conftest import arithmetic_probes, read_jsonl, write_jsonl
from evaluated_steps import write_steps
from scipy import stats

from domain_tokens.comparison import statistics
from domain_tokens.evaluation.scores import metrics, mul_table
from domain_tokens.runs.errors import InputError


def write_evaluation(
    folder, name, condition, right, version=1, seed=42, category=None, max_new_tokens=9, trained_with=None,
    weights=None, injected=None, init=None,
):  # fmt: skip
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
        "metrics": metrics(rows), "weights": weights,
        "lineage": [] if trained_with is None else [
            {"stage": "prepare_base"} | ({"init": init} if init else {}),
            {"stage": "sft_gsm8k", "seed": trained_with}
            | ({} if injected is None else {"inject_mul_tokens": injected}),
        ],
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
    assert row["verdict"].startswith("no difference shown; this run could have seen a difference of 1.")
    assert row["verdict"] in printed


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
    assert row["verdict"].startswith("no difference shown; this run could have seen")


def test_equal_answers_are_no_difference(compared):
    row, _ = compared([1, 0, 1], [1, 0, 1])
    assert (row["difference"], row["interval"], row["mcnemar_p"]) == (0, [0, 0], 1)
    assert row["verdict"] == "no difference shown; a run like this could not have seen any"


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


def several(tmp_path, baseline, mul_tokens, seeds=((0, 1, 2), (0, 1, 2)), weights="abc"):
    """Evaluations of three seeds; returns compare_runs.py's arguments."""
    folders = {"baseline": [], "mul_tokens": []}
    for side, right, own in zip(folders, (baseline, mul_tokens), seeds, strict=True):
        for i, answers in enumerate(right):
            folder = tmp_path / f"{side}_{i}"
            write_evaluation(folder, "gsm8k", side, answers, trained_with=own[i], weights=f"{side}{weights[i]}")
            folders[side].append(str(folder))
    return [
        "--baseline-dir", *folders["baseline"], "--mul-tokens-dir", *folders["mul_tokens"],
        "--output-path", str(tmp_path / "comparison.json"),
    ]  # fmt: skip


def test_several_seeds_are_one_comparison(tmp_path, capsys):
    baseline = [np.arange(100) < share for share in (40, 50, 45)]
    mul_tokens = [np.arange(100) < share for share in (70, 75, 68)]
    compare_runs.main(several(tmp_path, baseline, mul_tokens))
    result = json.loads((tmp_path / "comparison.json").read_text())
    row, printed = result["rows"][0], capsys.readouterr().out
    assert result["seeds"] == [0, 1, 2]
    assert result["eval_version"] == 1, "that of the folders"
    assert row["baseline"]["by_seed"] == pytest.approx([0.40, 0.50, 0.45])
    assert row["baseline"]["accuracy"] == pytest.approx(0.45)
    assert row["baseline"]["std_over_seeds"] == pytest.approx(0.05)
    assert (row["baseline"]["correct"], row["questions"]) == (135, 100)
    assert row["difference"] == pytest.approx(0.26)
    assert (row["only_baseline_right"], row["only_mul_tokens_right"]) == (0, 30 + 25 + 23)
    assert row["verdict"] == "mul_tokens better"
    assert "45.0% ± 5.0" in printed
    assert "over 3 seeds" in printed


def test_one_seed_against_two_is_no_difference_though_each_question_was_asked_three_times(tmp_path):
    baseline = [np.arange(100) < share for share in (50, 50, 50)]
    mul_tokens = [np.arange(100) < share for share in (80, 48, 49)]
    compare_runs.main(several(tmp_path, baseline, mul_tokens))
    row = json.loads((tmp_path / "comparison.json").read_text())["rows"][0]
    assert row["mcnemar_p"] < 1e-5
    assert row["interval"][0] < 0 < row["interval"][1]
    assert row["verdict"].startswith("no difference shown")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seeds": ((0, 1, 2), (0, 2, 1))}, "baseline and mul_tokens have their seeds in different order"),
        ({"seeds": ((0, 1, 2), (0, 1, 3))}, "baseline has seeds 0, 1, 2, mul_tokens 0, 1, 3; give both the same$"),
        ({"seeds": ((0, 1, 1), (0, 1, 2))}, "baseline_1 and .*baseline_2 are both of seed 1; give one"),
        ({"weights": "aba"}, "baseline_0 and .*baseline_2 are of one model"),
        ({"mul_tokens": [[1, 0]] * 2}, "3 baseline folders against 2 of mul_tokens"),
        ({"mul_tokens": [[1, 0], [1, 0], [1, 0, 1]]}, r"hold different questions \(1 without a partner\)"),
    ],
)
def test_seeds_that_do_not_pair_are_refused(tmp_path, change, message):
    settings = {"baseline": [[1, 0]] * 3, "mul_tokens": [[1, 0]] * 3} | change
    with pytest.raises(InputError, match=message):
        compare_runs.main(several(tmp_path, **settings))
    assert not (tmp_path / "comparison.json").exists()


def test_half_written_evaluations_are_refused(tmp_path):
    write_evaluation(tmp_path / "a", "gsm8k", "baseline", [1, 0, 1])
    write_evaluation(tmp_path / "b", "gsm8k", "mul_tokens", [1, 0, 1])
    predictions = tmp_path / "b/gsm8k_predictions.jsonl"
    predictions.write_text("".join(predictions.read_text().splitlines(keepends=True)[:2]))
    with pytest.raises(InputError, match=r"does not match its results \(2 predictions\)"):
        compare_runs.main(arguments(tmp_path))
    predictions.write_text('{"id": 5}\n')
    with pytest.raises(InputError, match="line 1: id is 5, expected text"):
        compare_runs.main(arguments(tmp_path))
    predictions.unlink()
    with pytest.raises(InputError, match="is missing"):
        compare_runs.main(arguments(tmp_path))
    with pytest.raises(InputError, match="no complete evaluation"):
        compare_runs.main(
            [*arguments(tmp_path)[:1], str(tmp_path), "--mul-tokens-dir", str(tmp_path), *arguments(tmp_path)[4:]]
        )


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        # As many right answers as the results say, and the same set of ids on both sides.
        (([0, 0, 1], [0, 1, 1]), "a/gsm8k_predictions.jsonl line 2: id 'gsm8k-00000' is there already"),
        (([0, 1, 2], [0, 1, 0]), "b/gsm8k_predictions.jsonl line 3: id 'gsm8k-00000' is there already"),
        (([0, 1, 2], [0, 1, 7]), r"different questions \(2 without a partner\)"),
    ],
)
def test_predictions_that_are_no_pairs_are_refused(tmp_path, ids, message):
    for folder, condition, own in zip("ab", ("baseline", "mul_tokens"), ids, strict=True):
        write_evaluation(tmp_path / folder, "gsm8k", condition, [1, 0, 1])
        path = tmp_path / folder / "gsm8k_predictions.jsonl"
        first = json.loads(path.read_text().splitlines()[0])
        rows = [
            first | {"id": f"gsm8k-{i:05}", "correct": right} for i, right in zip(own, (True, False, True), strict=True)
        ]
        write_jsonl(path, rows)
    with pytest.raises(InputError, match=message):
        compare_runs.main(arguments(tmp_path))
    assert not (tmp_path / "comparison.json").exists()


@pytest.mark.parametrize("content", ["a note of mine", "[1, 2]", '{"plots": 5}', '{"token_usage": {}, "plots": null}'])
def test_overwrite_replaces_whatever_lies_there(tmp_path, content):
    write_evaluation(tmp_path / "a", "gsm8k", "baseline", [1, 0, 1])
    write_evaluation(tmp_path / "b", "gsm8k", "mul_tokens", [1, 0, 1])
    (tmp_path / "comparison.json").write_text(content)
    (tmp_path / "comparison_accuracy.png").write_bytes(b"somebody's picture")
    compare_runs.main([*arguments(tmp_path), "--overwrite"])
    assert json.loads((tmp_path / "comparison.json").read_text())["plots"] == ["comparison_accuracy.png"]
    assert (tmp_path / "comparison_accuracy.png").read_bytes().startswith(b"\x89PNG")


def test_only_plots_of_a_comparison_are_replaced(tmp_path):
    write_evaluation(tmp_path / "a", "gsm8k", "baseline", [1, 0, 1])
    write_evaluation(tmp_path / "b", "gsm8k", "mul_tokens", [1, 0, 1])
    plot = tmp_path / "comparison_accuracy.png"
    plot.write_bytes(b"somebody's picture")
    with pytest.raises(InputError, match="comparison_accuracy.png is no plot of a comparison"):
        compare_runs.main(arguments(tmp_path))
    assert plot.read_bytes() == b"somebody's picture"
    assert not (tmp_path / "comparison.json").exists()
    plot.unlink()
    for _ in range(2):  # the second one replaces the first
        compare_runs.main(arguments(tmp_path))
    plot.write_bytes(b"as an earlier version wrote it")
    compare_runs.main(arguments(tmp_path))  # listed in comparison.json
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_generated_data_is_called_generated(tmp_path, capsys):
    for folder, condition in (("a", "baseline"), ("b", "mul_tokens")):
        write_evaluation(tmp_path / folder, "gsm8k", condition, [1, 0, 1])
        path = tmp_path / folder / "gsm8k_results.json"
        results = json.loads(path.read_text())
        path.write_text(json.dumps(results | {"lineage": [{"stage": "prepare_base", "source": "toy", "seed": 42}]}))
    compare_runs.main(arguments(tmp_path))
    printed = capsys.readouterr().out
    for text in ("measure (generated data)", "GSM8K (generated data): no difference", "replies (generated data)"):
        assert text in printed


def test_a_part_of_the_probes_is_compared_by_the_categories_it_has(tmp_path, capsys):
    for folder, condition in (("a", "baseline"), ("b", "mul_tokens")):
        rows = [
            {
                "id": probe.id, "question": probe.text, "reference": probe.reference, "category": probe.category,
                "reply": "7", "extracted": "7", "extracted_strict": None, "correct": probe.reference == "7",
                "correct_strict": False, "tokens": 3, "mul_tokens": 0, "finished": True,
            }
            for probe in arithmetic_probes()[:20]
        ]  # fmt: skip
        write_jsonl(tmp_path / folder / "arithmetic_predictions.jsonl", rows)
        results = {"condition": condition, "eval_version": 1, "config": {"seed": 42}, "metrics": metrics(rows)}
        (tmp_path / folder / "arithmetic_results.json").write_text(json.dumps(results))
    compare_runs.main(arguments(tmp_path))
    names = [row["name"] for row in json.loads((tmp_path / "comparison.json").read_text())["rows"]]
    assert names == ["probes", "probes: mul_table"]


def test_probes_are_compared_by_category_and_drawn_as_maps(tmp_path, capsys):
    for folder, condition, wrong in (("a", "baseline", {"mul_table-6x9"}), ("b", "mul_tokens", set())):
        rows = [
            {
                "id": probe.id, "question": probe.text, "reference": probe.reference, "category": probe.category,
                "reply": "…", "extracted": None, "extracted_strict": None, "correct": probe.id not in wrong,
                "correct_strict": False, "tokens": 3, "mul_tokens": 0, "finished": True,
            }
            for probe in arithmetic_probes()
        ]  # fmt: skip
        write_jsonl(tmp_path / folder / "arithmetic_predictions.jsonl", rows)
        results = {"condition": condition, "eval_version": 1, "config": {"seed": 42}, "metrics": metrics(rows)}
        (tmp_path / folder / "arithmetic_results.json").write_text(json.dumps(results))
        table = mul_table(rows)
        assert [len(row) for row in table] == [9] * 9
        assert table[5][8] is (condition == "mul_tokens")
        assert sum(map(sum, table)) == 81 - len(wrong)
    compare_runs.main(arguments(tmp_path))
    result = json.loads((tmp_path / "comparison.json").read_text())
    assert [(row["name"], row["questions"]) for row in result["rows"]] == [
        ("probes", 281), ("probes: mul_table", 81), ("probes: mul_multidigit", 100), ("probes: addition", 100),
    ]  # fmt: skip
    assert result["rows"][1]["difference"] == pytest.approx(1 / 81)
    assert [row["holm_p"] for row in result["rows"][1:]] == [1, 1, 1]
    assert "holm_p" not in result["rows"][0]
    assert result["token_usage"]["arithmetic"]["baseline"]["avg_response_tokens"] == 3
    for name in result["plots"]:
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
    assert "probes: mul_table" in capsys.readouterr().out


def labelled(tmp_path, *flags, **groups):
    """Evaluations of labelled groups; returns compare_runs.py's arguments.

    groups: by label (condition, share of right answers of each seed, and what else `write_evaluation` takes).
    """
    words = []
    for label, (condition, shares, *others) in groups.items():
        settings = {"seeds": range(len(shares)), "weights": label} | (others[0] if others else {})
        seeds, weights = settings.pop("seeds"), settings.pop("weights")
        folders = [tmp_path / f"{label}_{seed}" for seed in seeds]
        for folder, seed, share in zip(folders, seeds, shares, strict=True):
            right = np.random.default_rng(sum(map(ord, weights)) + seed).permutation(300) < 300 * share
            own = {"trained_with": seed, "weights": f"{weights}{seed}"} | settings
            write_evaluation(folder, "gsm8k", condition, right, **own)
        words.append(f"{label.replace('_', ' ')}={','.join(map(str, folders))}")
    return ["--runs", *words, *flags, "--output-path", str(tmp_path / "comparison.json")]


def compared_groups(tmp_path, capsys, arguments):
    compare_runs.main(arguments)
    return json.loads((tmp_path / "comparison.json").read_text()), capsys.readouterr().out


def test_two_groups_of_one_condition_with_other_seeds_are_an_a_a_comparison(tmp_path, capsys):
    groups = {"first": ("baseline", [0.4] * 3), "second": ("baseline", [0.4] * 3, {"seeds": [3, 4, 5]})}
    result, printed = compared_groups(tmp_path, capsys, labelled(tmp_path, **groups))
    (contrast,) = result["contrasts"]
    assert (contrast["reference"], contrast["other"], contrast["differs_in"]) == ("first", "second", ["seeds"])
    assert result["groups"]["second"] == {
        "condition": "baseline", "injected": None, "init": None, "source": None, "stages": "prepare_base, sft_gsm8k",
        "seeds": [3, 4, 5],
        "dirs": [str(tmp_path / f"second_{seed}") for seed in (3, 4, 5)],
    }  # fmt: skip
    assert contrast["rows"][0]["verdict"].startswith("no difference shown")
    assert "second − first: differs in seeds\n" in printed


def test_the_order_of_folders_decides_nothing(tmp_path):
    groups = {"first": ("baseline", [0.4, 0.6, 0.5]), "second": ("baseline", [0.3, 0.6, 0.5], {"seeds": [3, 4, 5]})}
    arguments = labelled(tmp_path, **groups)
    compare_runs.main(arguments)
    before = json.loads((tmp_path / "comparison.json").read_text())
    arguments[2] = "second=" + ",".join(reversed(arguments[2].removeprefix("second=").split(",")))
    compare_runs.main(arguments)
    after = json.loads((tmp_path / "comparison.json").read_text())
    assert after["contrasts"] == before["contrasts"]
    assert after["groups"]["second"]["dirs"] == before["groups"]["second"]["dirs"]


@pytest.mark.slow
def test_many_contrasts_can_still_show_a_large_difference(tmp_path):
    groups = {f"g{i}": ("baseline", [0.9 if i % 2 else 0.1]) for i in range(24)}  # 276 contrasts
    compare_runs.main(labelled(tmp_path, "--all-pairs", **groups))
    contrasts = json.loads((tmp_path / "comparison.json").read_text())["contrasts"]
    found = {(each["reference"], each["other"]): each["rows"][0]["verdict"] for each in contrasts}
    assert found["g0", "g1"] == "g1 better"
    assert found["g0", "g2"].startswith("no difference shown")


def test_an_evaluation_that_was_begun_again_or_is_of_another_model_is_refused(tmp_path):
    write_evaluation(tmp_path / "a", "gsm8k", "baseline", [1, 0, 1], weights="one")
    write_evaluation(tmp_path / "b", "gsm8k", "mul_tokens", [1, 0, 1], weights="two")
    begun = tmp_path / "a/gsm8k_unfinished.json"
    begun.write_text("{}")
    with pytest.raises(InputError, match="/a was evaluated again and that is not finished"):
        compare_runs.main(arguments(tmp_path))
    begun.unlink()
    write_evaluation(tmp_path / "a", "arithmetic", "baseline", [1, 0], category="mul_table", weights="three")
    write_evaluation(tmp_path / "b", "arithmetic", "mul_tokens", [1, 0], category="mul_table", weights="two")
    with pytest.raises(InputError, match="/a holds evaluations of two models, by their weights"):
        compare_runs.main(arguments(tmp_path))


def test_two_conditions_of_different_seeds_or_stages_are_said_to_be(tmp_path, capsys):
    write_evaluation(tmp_path / "a", "gsm8k", "baseline", [1, 0, 1], trained_with=16)
    write_evaluation(tmp_path / "b", "gsm8k", "mul_tokens", [1, 0, 1], trained_with=5)
    path = tmp_path / "b/gsm8k_results.json"
    results = json.loads(path.read_text())
    results["lineage"].insert(1, {"stage": "sft_tulu", "seed": 5})
    path.write_text(json.dumps(results))
    compare_runs.main(arguments(tmp_path))
    words = " ".join(capsys.readouterr().out.split())
    assert "mul_tokens − baseline: differs in condition, stages and seeds: the difference cannot be put down" in words


def test_an_ablation_differs_in_injection_and_two_causes_are_told(tmp_path, capsys):
    facts = {"injected": True, "init": "pieces"}
    groups = {
        "with_facts": ("mul_tokens", [0.6, 0.6], facts),
        "without": ("mul_tokens", [0.4, 0.4], {"injected": False, "init": "pieces"}),
        "plain": ("baseline", [0.4, 0.4], {"injected": False, "init": "mean"}),
    }
    arguments = labelled(tmp_path, "--reference", "without", **groups)
    result, printed = compared_groups(tmp_path, capsys, arguments)
    assert [each["differs_in"] for each in result["contrasts"]] == [["injection"], ["condition", "init"]]
    assert result["reference"] == "without"
    assert "with facts − without: differs in injection\n" in printed
    words = "differs in condition and init: the difference cannot be put down to one of them"
    assert f"plain − without: {words}" in " ".join(printed.split())
    assert result["contrasts"][0]["rows"][0]["verdict"] == "with facts better"


FOUR = {
    "baseline": ("baseline", [0.4, 0.4]), "mul_tokens": ("mul_tokens", [0.6, 0.6]),
    "annotated": ("annotated", [0.6, 0.6]), "placebo": ("placebo", [0.4, 0.4]),
}  # fmt: skip


@pytest.mark.parametrize(
    ("flags", "pairs"),
    [
        ([], ["mul tokens − baseline", "annotated − baseline", "placebo − baseline"]),
        (["--reference", "placebo"], ["baseline − placebo", "mul tokens − placebo", "annotated − placebo"]),
        (["--all-pairs"], ["mul tokens − baseline", "annotated − baseline", "placebo − baseline",
                           "annotated − mul tokens", "placebo − mul tokens", "placebo − annotated"]),
    ],
)  # fmt: skip
def test_four_groups_are_compared_with_one_or_each_with_each(tmp_path, capsys, flags, pairs):
    result, printed = compared_groups(tmp_path, capsys, labelled(tmp_path, *flags, **FOUR))
    contrasts = result["contrasts"]
    assert [f"{each['other']} − {each['reference']}" for each in contrasts] == pairs
    assert result["reference"] == (None if "--all-pairs" in flags else contrasts[0]["reference"])
    rows = [each["rows"][0] for each in contrasts]
    each_p = [max(row["mcnemar_p"], row["interval_p"]) for row in rows]
    assert [row["holm_p"] for row in rows] == pytest.approx(statistics.holm_p(each_p))
    for row, pair in zip(rows, pairs, strict=True):
        is_unlike = ("baseline" in pair or "placebo" in pair) and ("mul tokens" in pair or "annotated" in pair)
        assert row["verdict"].startswith("no difference") == (not is_unlike), pair
    assert max(map(len, printed.partition("wrote")[0].split("\n"))) <= 100


def test_a_pair_of_labels_has_the_numbers_of_the_two_flags(tmp_path, capsys):
    write_evaluation(tmp_path / "a", "gsm8k", "baseline", np.arange(100) < 50)
    write_evaluation(tmp_path / "b", "gsm8k", "mul_tokens", np.arange(100) < 60)
    old, _ = compared_groups(tmp_path, capsys, arguments(tmp_path))
    runs = ["--runs", f"baseline={tmp_path / 'a'}", f"mul_tokens={tmp_path / 'b'}", *arguments(tmp_path)[4:]]
    new, _ = compared_groups(tmp_path, capsys, runs)
    assert new["contrasts"][0]["rows"] == old["rows"]
    assert new["token_usage"] == old["token_usage"]


PAIR = {"a": ("baseline", [0.4, 0.4]), "b": ("mul_tokens", [0.4, 0.4])}


@pytest.mark.parametrize(
    ("groups", "flags", "message"),
    [
        (PAIR, ["--reference", "c"], "--reference c is none of the labels a, b; give one of them"),
        (PAIR, ["--reference", "a", "--all-pairs"], "contradict each other"),
        (PAIR, ["--baseline-dir", "x"], "--runs and --baseline-dir or --mul-tokens-dir contradict each other"),
        ({"a": PAIR["a"]}, [], "--runs has one group, .*; give two or more"),
        ({"verdict": PAIR["a"], "b": PAIR["b"]}, [], "label 'verdict' is a key of comparison.json; choose another"),
        *(
            ({label: PAIR["a"], "b": PAIR["b"]}, [], "is no label, expected 1 to 24 visible Latin, Greek or Cyrillic")
            for label in ("x" * 25, "_hidden", "模型", " a", "a ", "a  b", "a\u200b", "🙂 a")
        ),
        ({"a": PAIR["a"], "b": ("mul_tokens", [0.4])}, [], "2 a folders against 1 of b"),
        (
            {"a": PAIR["a"], "b": ("mul_tokens", [0.4, 0.4], {"seeds": [1, 0]})}, [],
            "a and b have their seeds in different order",
        ),
        (
            {"a": PAIR["a"], "b": ("mul_tokens", [0.4, 0.4], {"seeds": [1, 2]})}, [],
            "a has seeds 0, 1, b 1, 2; give both the same, or entirely other ones",
        ),
        ({"a": PAIR["a"], "b": ("baseline", [0.4, 0.4], {"weights": "a"})}, [], "a_0 and .*b_0 are of one model"),
    ],
)  # fmt: skip
def test_groups_that_cannot_be_compared_are_refused(tmp_path, groups, flags, message):
    with pytest.raises(InputError, match=message):
        compare_runs.main(labelled(tmp_path, *flags, **groups))
    assert not (tmp_path / "comparison.json").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["a={0}/a_0", "a={0}/b_0"], "--runs has the label a twice"),
        (["a={0}/a_0", "b={0}/none"], "--runs b: .*none is no folder; give one that an evaluation was written to"),
        (["a={0}/a_0", "b"], "--runs b: no folder; give LABEL=DIR"),
        (["a={0}/a_0,{0}/b_1", "b={0}/b_0,{0}/a_1"], "group a mixes condition: baseline in .* and mul_tokens in"),
    ],
)
def test_words_of_runs_that_say_no_group_are_refused(tmp_path, words, message):
    labelled(tmp_path, **PAIR)
    with pytest.raises(InputError, match=message):
        output = ["--output-path", str(tmp_path / "comparison.json")]
        compare_runs.main(["--runs", *(word.format(tmp_path) for word in words), *output])


def test_without_groups_it_says_what_is_missing():
    with pytest.raises(InputError, match=r"required: --mul-tokens-dir \(or --runs LABEL=DIR …\)"):
        compare_runs.main(["--baseline-dir", "a", "--output-path", "c.json"])
    with pytest.raises(InputError, match="--reference and --all-pairs need --runs"):
        compare_runs.main(["--baseline-dir", "a", "--mul-tokens-dir", "b", "--all-pairs", "--output-path", "c.json"])


def test_steps_are_compared_by_right_ones_and_by_bits_of_the_shared_text(tmp_path, capsys):
    for folder, condition, extra in (("a", "baseline", 0.2), ("b", "mul_tokens", 0.0)):
        (tmp_path / folder).mkdir()
        write_steps(tmp_path / folder, condition, extra_bits=extra)
    result, printed = compared_groups(tmp_path, capsys, arguments(tmp_path))
    steps, numbers, words = result["rows"]
    assert [row["name"] for row in result["rows"]] == [
        "step accuracy", "numbers, bits per byte", "words, bits per byte"
    ]  # fmt: skip
    for side, label in (("a", "baseline"), ("b", "mul_tokens")):
        metrics = json.loads((tmp_path / side / "steps_results.json").read_text())["metrics"]
        assert steps[label]["accuracy"] == pytest.approx(metrics["step_accuracy"])
        assert steps[label]["correct"] == metrics["correct"]
        assert numbers[label]["bits_per_byte"] == pytest.approx(metrics["number_bits_per_byte"])
        assert words[label]["bits_per_byte"] == pytest.approx(metrics["word_bits_per_byte"])
    assert (words["questions"], words["unit"], words["cohens_h"]) == (60, "bits per byte", None)
    assert words["difference"] == pytest.approx(-0.2, abs=0.05)
    assert words["verdict"] == "mul_tokens better", "fewer bits are better"
    assert steps["verdict"].startswith("no difference shown; this run could have seen a difference of")
    assert "permutation_p" in words and "permutation_p" in steps
    text = " ".join(printed.split())
    assert "a token that replaces a fact forgets operand order, spacing and whether the result was written" in text
    assert "a fact in the prefix tells the result just as 6*9=54 does" in text
    assert result["plots"] == ["comparison_accuracy.png", "comparison_bits.png"]
    assert result["token_usage"]["steps"]["baseline"]["avg_response_tokens"] == 6


@pytest.mark.parametrize(("questions", "verdict"), [(5, "no difference shown"), (60, "mul_tokens better")])
def test_a_handful_of_questions_claims_no_bits(tmp_path, capsys, questions, verdict):
    """Of five questions, 2 of 32 ways to turn them round are as far from 0: no p below 0.0625."""
    for folder, condition, extra in (("a", "baseline", 0.5), ("b", "mul_tokens", 0.0)):
        (tmp_path / folder).mkdir()
        write_steps(tmp_path / folder, condition, extra_bits=extra, questions=questions)
    result, _ = compared_groups(tmp_path, capsys, arguments(tmp_path))
    words = result["rows"][2]
    assert words["interval"][1] < 0, "the interval alone would claim it"
    assert words["verdict"].partition(";")[0] == verdict


def test_one_question_is_compared(tmp_path, capsys):
    for folder, condition, extra in (("a", "baseline", 0.5), ("b", "mul_tokens", 0.0)):
        (tmp_path / folder).mkdir()
        write_steps(tmp_path / folder, condition, extra_bits=extra, questions=1)
    result, _ = compared_groups(tmp_path, capsys, arguments(tmp_path))
    assert result["rows"][2]["verdict"] == "no difference shown; a run like this could not have seen any"


def test_bits_that_are_not_those_of_the_results_are_refused(tmp_path):
    for folder, condition in (("a", "baseline"), ("b", "mul_tokens")):
        (tmp_path / folder).mkdir()
        write_steps(tmp_path / folder, condition)
    path = tmp_path / "b/steps_predictions.jsonl"
    rows = read_jsonl(path)
    rows[3]["word_bits"] += 5
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(InputError, match=r"does not match its results \(word_bits_per_byte\)"):
        compare_runs.main(arguments(tmp_path))


def test_labels_may_look_like_formulas(tmp_path, capsys):
    groups = {"a$^$": ("baseline", [0.4, 0.4]), "ωμέγα 5%": ("mul_tokens", [0.5, 0.5])}
    compared_groups(tmp_path, capsys, labelled(tmp_path, **groups))
    assert (tmp_path / "comparison_accuracy.png").is_file()


def test_the_two_flags_tell_one_model_on_both_sides(tmp_path, capsys):
    for folder, condition in (("a", "baseline"), ("b", "mul_tokens")):
        write_evaluation(tmp_path / folder, "gsm8k", condition, [1, 0] * 20, weights="same")
    result, printed = compared_groups(tmp_path, capsys, arguments(tmp_path))
    assert "baseline and mul_tokens are of one and the same model, by its weights." in printed
    assert (result["rows"][0]["difference"], result["rows"][0]["interval"]) == (0, [0, 0])


def test_the_two_flags_tell_an_ablation(compared):
    for injected in (False, True):
        _, printed = compared([1, 0] * 40, [1, 1] * 40, trained_with=42, injected=injected)
        assert ("An ablation: training texts of mul_tokens were left as they are" in printed) == (not injected)
        assert "One seed each: what holds for these models need not hold for other seeds." in printed


def test_bits_of_several_groups_are_corrected_for_being_several(tmp_path, capsys):
    runs = []
    for label, extra in (("one", 0.0), ("two", 0.0), ("three", 0.3)):
        folders = [tmp_path / f"{label}{seed}" for seed in range(3)]
        for seed, folder in enumerate(folders):
            folder.mkdir()
            own = 10 * len(runs) + seed
            write_steps(folder, "baseline", seed=own, extra_bits=extra, weights=f"{label}{seed}")
        runs.append(f"{label}={','.join(map(str, folders))}")
    output = ["--output-path", str(tmp_path / "comparison.json")]
    result, printed = compared_groups(tmp_path, capsys, ["--runs", *runs, *output])
    words = [contrast["rows"][2] for contrast in result["contrasts"]]
    larger = [max(row["interval_p"], row["permutation_p"]) for row in words]
    assert [row["holm_p"] for row in words] == pytest.approx(statistics.holm_p(larger))
    assert words[0]["verdict"].startswith("no difference shown; this run could have seen a difference of 0.")
    groups = [contrast["rows"][1][label] for contrast in result["contrasts"] for label in ("one", contrast["other"])]
    assert all(0 <= low < high for low, high in (group["interval"] for group in groups)), "no bits below 0"
    assert words[1]["verdict"] == "one better"
    assert "words, bits per byte (60 questions): one" in printed
    assert max(map(len, printed.partition("wrote")[0].split("\n"))) <= 100


def test_steps_with_other_bytes_did_not_measure_the_same_text(tmp_path):
    for folder, condition, more in (("a", "baseline", 0), ("b", "mul_tokens", 1)):
        (tmp_path / folder).mkdir()
        write_steps(tmp_path / folder, condition, more=more)
    with pytest.raises(InputError, match="differ in the bytes of gsm8k-00000-1, so they did not measure the same text"):
        compare_runs.main(arguments(tmp_path))
    assert not (tmp_path / "comparison.json").exists()


def test_steps_without_bits_are_refused_by_line(tmp_path):
    for folder, condition in (("a", "baseline"), ("b", "mul_tokens")):
        (tmp_path / folder).mkdir()
        write_steps(tmp_path / folder, condition)
    path = tmp_path / "b/steps_predictions.jsonl"
    path.write_text(path.read_text().replace("word_bits", "bits", 1))
    with pytest.raises(InputError, match="steps_predictions.jsonl line 1: word_bits is missing"):
        compare_runs.main(arguments(tmp_path))
