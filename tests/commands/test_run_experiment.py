"""Several seeds: every stage and evaluation once with each, one comparison and one report of them all."""

import json
import subprocess
import sys
from pathlib import Path

import make_report
import pytest
import run_experiment
import show_progress
from conftest import PAIR

from domain_tokens.runs.errors import InputError

ROOT = Path(__file__).parents[2]
SHORT = {  # the quickstart's config with hardly any training
    "- global_batch_size=16": "- global_batch_size=4\n    - trainer.max_steps=4",
    "- data.val_samples=200": "- data.val_samples=20",
    "- max_new_tokens=96": "- max_new_tokens=4\n    - max_samples=20",
    "config: eval/configs/probes.yaml": "config: eval/configs/probes.yaml\n  overrides: [max_new_tokens=4]",
}


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    root = tmp_path_factory.mktemp("seeds") / "toy"
    config = (ROOT / "scripts/configs/toy.yaml").read_text().replace("outputs/toy", str(root))
    for old, new in SHORT.items():
        assert old in config
        config = config.replace(old, new)
    path = root.parent / "toy.yaml"
    path.write_text(config)
    command = [sys.executable, "scripts/run_experiment.py", "--config", str(path), "--seeds", "0", "1"]
    shown = [subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False) for _ in range(2)]
    return root, shown


def test_every_seed_has_its_own_folders_and_weights(experiment):
    root, (shown, _) = experiment
    assert shown.returncode == 0, shown.stderr[-3000:]
    weights = set()
    for seed in (0, 1):
        for condition in PAIR:
            for stage, name in (("sft_tulu", "tulu_sft_results"), ("sft_gsm8k", "sft_results")):
                results = json.loads((root / f"seed_{seed}/{stage}_{condition}/{name}.json").read_text())
                assert results["seed"] == seed
                weights.add(results["weights"])
            evaluated = json.loads((root / f"seed_{seed}/eval_{condition}/arithmetic_results.json").read_text())
            assert evaluated["lineage"][-1]["seed"] == seed
            assert evaluated["seed"] == 42, "the probes are the same for every seed"
    assert len(weights) == 8
    assert not (root / "sft_tulu_baseline").exists()


def test_one_comparison_and_one_report_cover_all_seeds(experiment):
    root, (shown, _) = experiment
    comparison = json.loads((root / "comparison.json").read_text())
    assert comparison["seeds"] == [0, 1]
    assert len(comparison["rows"][0]["baseline"]["by_seed"]) == 2
    page = (root / "report.html").read_text(encoding="utf-8")
    assert "2 seeds" in page
    for path in ("seed_0/sft_tulu_baseline", "seed_0/eval_mul_tokens", "comparison.json", "report.html"):
        assert f"  {root / path}\n" in shown.stdout
    assert "\n  the same for other seeds: 1\n" in shown.stdout


def test_given_again_finished_seeds_are_skipped(experiment):
    _, (_, again) = experiment
    assert again.returncode == 0, again.stderr[-3000:]
    assert again.stdout.count("is complete already") == 2 * 6
    assert again.stdout.count("holds this evaluation already") == 2 * 4


def test_a_report_of_one_seed_and_the_progress_of_all(experiment, tmp_path, capsys):
    root, _ = experiment
    make_report.main([str(root), "--seeds", "1", "--output-path", str(tmp_path / "one.html")])
    assert "1 seed<" in (tmp_path / "one.html").read_text(encoding="utf-8")
    capsys.readouterr()
    show_progress.main([str(root)])
    shown = capsys.readouterr().out.splitlines()
    assert len(shown) == 2 + 8 + 2
    assert all(line.count("complete: ") == 2 for line in shown[2:-2])
    assert shown[-1] == "Losses per token of different conditions cannot be compared: their tokens differ."


def test_seeds_that_make_no_sense_are_refused():
    with pytest.raises(InputError, match="contradict each other"):
        run_experiment.main(["--seed", "1", "--seeds", "1", "2"])
    with pytest.raises(InputError, match="--seeds 1 2 1 names one twice"):
        run_experiment.main(["--seeds", "1", "2", "1"])
