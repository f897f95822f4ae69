"""What run_experiment.py would run: every command of a plan, for conditions and seeds out of its YAML."""

import shlex

import pytest
import run_experiment
import yaml
from documents import ROOT

from domain_tokens.runs.errors import InputError

FOUR = ("baseline", "mul_tokens", "annotated", "placebo")


def planned(capsys, *words: str) -> list[list[str]]:
    run_experiment.main([*words, "--dry-run"])
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("$ ")]
    return [shlex.split(line.removeprefix("$ uv run python ")) for line in lines]


def config(tmp_path, name: str = "toy", **changes) -> str:
    values = yaml.safe_load((ROOT / f"scripts/configs/{name}.yaml").read_text(encoding="utf-8"))
    (tmp_path / "experiment.yaml").write_text(yaml.safe_dump(values | changes, sort_keys=False))
    return str(tmp_path / "experiment.yaml")


def value(command: list[str], flag: str) -> str:
    return command[command.index(flag) + 1]


def test_the_controls_make_one_start_model_a_seed_and_compare_all_pairs(capsys):
    commands = planned(capsys, "--config", "scripts/configs/toy_controls.yaml")
    starts = [command for command in commands if command[0] == "scripts/prepare_base.py"]
    assert [(value(each, "--seed"), value(each, "--output-dir")) for each in starts] == [
        (seed, f"outputs/toy_controls/seed_{seed}/hf") for seed in "012"
    ]
    assert all(tuple(each[each.index("--condition") + 1 :][:4]) == FOUR for each in starts)
    asked = [command for command in commands if command[0] == "eval/run_gsm8k_steps.py"]
    assert len(asked) == len([each for each in commands if each[0] == "sft/sft_tulu.py"]) == 12
    compare, report = commands[-2:]
    assert compare[1:4] == [
        "--runs",
        *(
            f"{name}=" + ",".join(f"outputs/toy_controls/seed_{seed}/eval_{name}" for seed in "012")
            for name in FOUR[:2]
        ),
    ]
    assert "--all-pairs" in compare
    assert report == ["scripts/make_report.py", "outputs/toy_controls", "--seeds", "0", "1", "2"]


def test_the_real_experiment_with_its_controls_starts_all_conditions_from_one_model(capsys):
    commands = planned(capsys, "--config", "scripts/configs/experiment_controls.yaml")
    first = [each for each in commands if each[0] == "sft/sft_tulu.py"]
    assert {value(each, "--model-path") for each in first} == {"outputs/experiment_controls/start"}
    assert [(value(each, "--seed"), value(each, "--condition")) for each in first] == [
        (seed, condition) for seed in "012" for condition in FOUR
    ]
    counts = [sum(each[0] == script for each in commands) for script in run_experiment.EVALUATION_SCRIPTS.values()]
    assert counts == [12, 12, 12]


def test_the_quickstart_is_compared_by_its_two_flags(capsys):
    compare = planned(capsys)[-2]
    assert value(compare, "--baseline-dir") == "outputs/toy/eval_baseline"
    assert value(compare, "--mul-tokens-dir") == "outputs/toy/eval_mul_tokens"


def test_conditions_chooses_and_orders_them(capsys, tmp_path):
    path = config(tmp_path, "toy_controls", conditions=["placebo", "annotated"], seeds=None)
    commands = planned(capsys, "--config", path)
    assert [value(each, "--condition") for each in commands if each[0] == "sft/sft_gsm8k.py"] == [
        "placebo",
        "annotated",
    ]
    assert commands[-2][2] == "placebo=outputs/toy_controls/eval_placebo"


def test_flags_come_before_the_seeds_of_the_file(capsys, tmp_path):
    path = config(tmp_path, seeds=[5, 6])
    for words, seeds in (([], {"5", "6"}), (["--seeds", "7"], {"7"}), (["--seed", "8"], {"8"})):
        commands = planned(capsys, "--config", path, *words)
        assert {value(each, "--seed") for each in commands if each[0].startswith("sft/")} == seeds


def test_an_override_replaces_a_key_of_the_file(capsys):
    words = ["base.source=model.gguf", "base.init=random", "sft_gsm8k.dataset=data/gsm8k", "seeds=[3]"]
    commands = planned(capsys, "--config", "scripts/configs/smollm2.yaml", *words)
    assert [value(commands[0], flag) for flag in ("--source", "--init")] == ["model.gguf", "random"]
    assert value(commands[1], "--dataset-path") == "data/gsm8k"
    assert not [each for each in commands if each[0] == "sft/sft_tulu.py"], "this experiment has no stage 1"


@pytest.mark.parametrize(
    "words",
    [
        ("--seeds", "4", "9", "output_root=outputs/x", "eval_probes=null"),
        ("output_root=outputs/x", "--seeds", "4", "9", "eval_probes=null"),
        ("eval_probes=null", "output_root=outputs/x", "--seeds", "4", "9"),
    ],
)
def test_overrides_may_stand_anywhere_and_leave_a_stage_out(capsys, words):
    commands = planned(capsys, *words)
    trained = [each for each in commands if each[0] == "sft/sft_gsm8k.py"]
    assert [(value(each, "--seed"), value(each, "--output-dir")) for each in trained] == [
        (seed, f"outputs/x/seed_{seed}/sft_gsm8k_{condition}") for seed in "49" for condition in FOUR[:2]
    ]
    assert {each[0] for each in commands if each[0].startswith("eval/")} == {"eval/run_gsm8k.py"}


def test_an_override_fills_a_block_that_the_file_leaves_out(capsys, tmp_path):
    file = config(tmp_path, eval_probes=None)
    assert not [each for each in planned(capsys, "--config", file) if each[0] == "eval/run_arithmetic_probes.py"]
    commands = planned(capsys, "--config", file, "eval_probes.config=eval/configs/probes.yaml")
    assert len([each for each in commands if each[0] == "eval/run_arithmetic_probes.py"]) == 2


def test_a_key_of_any_depth_can_be_overridden(capsys):
    commands = planned(capsys, "--config", "scripts/configs/experiment.yaml", "base.models.baseline=outputs/mine")
    starts = [value(each, "--model-path") for each in commands if each[0] == "sft/sft_tulu.py"]
    assert starts[0] == "outputs/mine"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["output_root=outputs/lr1e-4,bs8"], "output_root is outputs/lr1e-4,bs8, expected a path without a comma"),
        (["sft_gsm8k.overrides=[data.dataset=mine]"], "sft_gsm8k: its overrides give a dataset"),
        (["eval_gsm8k.overrides=[dataset=mine]"], "eval_gsm8k: its overrides give a dataset"),
        (["base.source=null", "base.layers=2"], "base.layers is for base.source toy; another source has its own"),
        (["base.layers=0"], "base.layers is 0, expected at least 1 layer, or null"),
    ],
)
def test_what_would_fail_or_be_ignored_hours_later_is_refused(words, message):
    with pytest.raises(InputError, match=message):
        run_experiment.main([*words, "--dry-run"])


@pytest.mark.parametrize("words", [[], ["seeds=[1, 2]"]])
def test_the_toy_world_lies_below_the_output_root_whatever_that_is(capsys, words):
    commands = planned(capsys, "output_root=runs/mine", *words)
    flags = ("--dataset-path", "--model-path", "--output-dir")
    paths = [value(each, flag) for each in commands for flag in flags if flag in each]
    assert len(paths) > 20
    assert all(path.startswith("runs/mine/") for path in paths)
    assert "runs/mine/data/tulu" in paths and "runs/mine/data/gsm8k" in paths


def test_other_rows_may_be_named_in_place_of_the_toy_worlds(capsys):
    commands = planned(capsys, "eval_gsm8k.dataset=data/one_step")
    assert {value(each, "--dataset-path") for each in commands if each[0] == "eval/run_gsm8k.py"} == {"data/one_step"}


def test_the_sizes_of_the_toy_world_are_passed_on(capsys):
    commands = planned(capsys, "--config", "scripts/configs/study_toy.yaml", "--seeds", "3", "4")
    assert [value(commands[0], flag) for flag in ("--test-problems", "--two-digit")] == ["3000", "1.0"]
    starts = [each for each in commands if each[0] == "scripts/prepare_base.py"]
    assert [value(each, "--layers") for each in starts] == ["2", "2"]
    assert not any("--layers" in each for each in planned(capsys)), "the quickstart's model is as it was"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"conditions": ["baseline", "placebo"]}, "base.models has no start model of placebo, which conditions names"),
        ({"conditions": ["other"]}, "conditions.0 is 'other', expected baseline or mul_tokens"),
        ({"conditions": ["baseline"]}, "conditions are baseline; give two or more, each once"),
        ({"conditions": ["baseline", "mul_tokens", "baseline"]}, "give two or more, each once"),
        ({"seeds": [1, 1]}, "1 1 names one twice"),
        ({"seeds": [0, -1]}, "seeds.1 is -1, expected a list of seeds, or null"),
        ({"seeds": 3}, "seeds is 3, expected a list of seeds, or null"),
        ({"sft_gsm8k": {"config": "sft/configs/gsm8k.yaml", "overrides": ["nonsense=3"]}}, "sft_gsm8k: override"),
        ({"seeds": []}, "expected a list of seeds, or null"),
        ({"eval_steps": 5}, "eval_steps is 5, expected a block of keys"),
        ({"toy_data": {"chats": 0}}, "toy_data.chats is 0, expected at least 1 row"),
    ],
)
def test_a_file_that_makes_no_sense_is_refused(tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        run_experiment.main(["--config", config(tmp_path, **changes), "--dry-run"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--seeds", "0", "-1"], "--seeds is -1, expected 0 to"),
        (["--seeds", "1", "2", "1"], "--seeds 1 2 1 names one twice"),
        (["--seed", "1", "sft_gsm8k.overrides=[seed=5]"], "sft_gsm8k: its overrides give a seed"),
        (["seeds=[1, 2]", "sft_tulu.overrides=[seed=5]"], "sft_tulu: its overrides give a seed"),
    ],
)
def test_seeds_that_contradict_or_cannot_be_are_refused_before_the_first_step(words, message):
    with pytest.raises(InputError, match=message):
        run_experiment.main([*words, "--dry-run"])


def test_without_seeds_an_override_may_give_one(capsys):
    commands = planned(capsys, "sft_gsm8k.overrides=[seed=5]")
    assert [each[0] for each in commands if "seed=5" in each] == ["sft/sft_gsm8k.py"] * 2
