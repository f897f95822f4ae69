"""The same seed gives the same bytes, in another process too; another seed gives others."""

import json
import subprocess
import sys

import pytest
import run_arithmetic_probes
import run_gsm8k
import sft_tulu
from interruptions import ROOT

TIMES = ("train_runtime", "runtime", "peak_memory")  # what the clock and the machine's memory say
FIGURES = ("tulu_sft_results.json", "gsm8k_results.json", "arithmetic_results.json")


@pytest.fixture(scope="module")
def runs(toy_base, toy_data, tmp_path_factory):
    """Training and both evaluations, from the same paths, so that nothing but the seed can differ: files by name."""
    found = {}
    place = tmp_path_factory.mktemp("same_place")
    for name, seed in (("first", 1), ("again", 1), ("other", 2)):
        model, evaluated = place / "model", place / "evaluated"
        ask = ["--model-path", str(model), "--output-dir", str(evaluated), "--seed", str(seed), "max_new_tokens=12"]
        train = ["--model-path", str(toy_base["mul_tokens"]), "--output-dir", str(model), "--seed", str(seed)]
        recipe = ["--config", str(ROOT / "sft/configs/tulu.yaml"), "--dataset-path", str(toy_data / "tulu")]
        steps = ["max_steps=20", "val_samples=20", "learning_rate=1e-3", "save_strategy=no"]
        for script, command in (
            (sft_tulu, [*train, "--condition", "mul_tokens", *recipe, *steps]),
            (run_gsm8k, [*ask, "--dataset-path", str(toy_data / "gsm8k")]),
            (run_arithmetic_probes, ask),
        ):
            if name == "again" and script is not run_arithmetic_probes:  # with hashes of its own, for one
                subprocess.run([sys.executable, script.__file__, *command], cwd=ROOT, check=True, capture_output=True)
            else:
                script.main(command)
        files = [path for folder in (model, evaluated) for path in folder.iterdir() if path.is_file()]
        found[name] = {path.name: path.read_bytes() for path in files}
        for folder in (model, evaluated):
            folder.rename(place / f"{name}_{folder.name}")
    return found


def test_the_same_seed_gives_the_same_bytes(runs):
    first, again = runs["first"], runs["again"]
    assert first.keys() == again.keys() >= {"model.safetensors", "gsm8k_predictions.jsonl", *FIGURES}
    for name, content in first.items():
        if name in FIGURES:
            one, two = json.loads(content), json.loads(again[name])
            assert list(one) == list(two)
            assert {k: v for k, v in one.items() if k not in TIMES} == {k: v for k, v in two.items() if k not in TIMES}
        else:
            assert content == again[name], name


def test_another_seed_gives_another_model(runs):
    first, other = runs["first"], runs["other"]
    for name in ("model.safetensors", "gsm8k_predictions.jsonl", "arithmetic_predictions.jsonl"):
        assert first[name] != other[name], name
    one, two = (json.loads(run["tulu_sft_results.json"]) for run in (first, other))
    for key in ("train_loss", "eval_loss", "weights", "loss_curves"):
        assert one[key] != two[key], key
