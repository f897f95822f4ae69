"""The README's first command, whole: both conditions learn, and everything promised is there afterwards.

Takes some minutes; the tests that need a model which has learned something use what it leaves.
"""

import json
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest
import sample_sft
from conftest import CONDITIONS, Terminal, read_jsonl

from domain_tokens import is_correct
from domain_tokens.checkpoints import open_checkpoint
from domain_tokens.generation import generate_replies
from domain_tokens.prompt import question

ROOT = Path(__file__).parent.parent
MINUTES = 6


def run_experiment(root):
    """scripts/run_experiment.py with the quickstart's own config, into another folder."""
    config = (ROOT / "scripts/configs/toy.yaml").read_text().replace("outputs/toy", str(root))
    (root / "toy.yaml").write_text(config)
    command = [sys.executable, "scripts/run_experiment.py", "--config", str(root / "toy.yaml")]
    started = time.perf_counter()
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return shown, time.perf_counter() - started


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory):
    root = tmp_path_factory.mktemp("quickstart")
    shown, seconds = run_experiment(root)
    assert shown.returncode == 0, shown.stderr[-3000:]
    return root, shown, seconds


def results(root, condition, name):
    return json.loads((root / f"eval_{condition}" / f"{name}_results.json").read_text())["metrics"]


def test_it_ends_in_time_and_prints_no_warning(quickstart):
    _, shown, seconds = quickstart
    assert seconds < 60 * MINUTES
    bar = re.compile(r".*\d+/\d+ \[.*(?:row|question|step)s?.*\]\s*")  # progress is all that belongs on stderr
    assert [line for line in re.split(r"[\r\n]+", shown.stderr) if line and not bar.fullmatch(line)] == []
    assert not re.search(r"warning|deprecat", shown.stdout, re.IGNORECASE)


@pytest.mark.parametrize("condition", CONDITIONS)
def test_it_learns(quickstart, condition):
    root, _, _ = quickstart
    gsm8k, probes = results(root, condition, "gsm8k"), results(root, condition, "arithmetic")
    assert probes["category_accuracies"]["mul_table"]["accuracy"] >= 0.90
    assert gsm8k["accuracy"] >= 0.30
    assert gsm8k["finished_rate"] >= 0.95
    assert probes["finished_rate"] >= 0.95
    if condition == "mul_tokens":
        assert gsm8k["mul_tokens_per_response"] >= 0.5
    else:
        assert gsm8k["mul_token_count"] == probes["mul_token_count"] == 0


def test_it_leaves_the_comparison_and_names_what_it_wrote(quickstart):
    root, shown, _ = quickstart
    comparison = json.loads((root / "comparison.json").read_text())
    assert [row["name"] for row in comparison["rows"]][:3] == ["GSM8K", "GSM8K, strict", "probes"]
    for name in ("sft_tulu_baseline", "sft_gsm8k_mul_tokens", "eval_baseline", "comparison.json", *comparison["plots"]):
        assert (root / name).exists()
        assert str(root / name) in shown.stdout
    lineage = json.loads((root / "sft_gsm8k_mul_tokens/domain_tokens.json").read_text())["lineage"]
    assert [entry["stage"] for entry in lineage] == ["prepare_base", "sft_tulu", "sft_gsm8k"]


def test_given_again_it_skips_what_is_complete(quickstart):
    root, _, _ = quickstart
    (root / "eval_baseline/arithmetic_results.json").unlink()
    before = {path: path.stat().st_mtime_ns for path in root.glob("*/*results.json")}
    shown, _ = run_experiment(root)
    assert shown.returncode == 0, shown.stderr[-3000:]
    assert shown.stdout.count("is complete already") == 6
    assert shown.stdout.count("holds this evaluation already") == 3
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert (root / "eval_baseline/arithmetic_results.json").exists()


@pytest.mark.parametrize("condition", CONDITIONS)
def test_batched_replies_equal_one_by_one_replies(quickstart, condition):
    root, _, _ = quickstart
    checkpoint = open_checkpoint(str(root / f"sft_gsm8k_{condition}"), None)
    asked = [row["question"] for row in read_jsonl(root / "data/gsm8k/test.jsonl")[:20]]
    asked += ["What is 7 times 8?", "Hello", "List two colors.", "What is the capital of Peru?", "1+1 " * 40]
    conversations = [question(text) for text in asked]
    batched = dict(generate_replies(checkpoint, conversations, max_new_tokens=40, batch_size=25))
    assert len({len(reply.text) for reply in batched.values()}) > 3
    for i, conversation in enumerate(conversations):
        assert dict(generate_replies(checkpoint, [conversation], 40, 1))[0] == batched[i], asked[i]
    assert batched == dict(generate_replies(checkpoint, conversations, max_new_tokens=40, batch_size=7))


def test_its_models_answer_as_the_readme_shows(quickstart, monkeypatch):
    root, _, _ = quickstart
    (shown,) = re.findall(r"```console\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("NO_COLOR", "1")
    for line in re.findall(r"^\$ (.*)", shown, re.MULTILINE):
        terminal.write(f"$ {line}\n")
        *program, script = shlex.split(line)[:4]
        assert (program, script) == (["uv", "run", "python"], "sample/sample_sft.py")
        arguments = [word.replace("outputs/toy", str(root)) for word in shlex.split(line)[4:]]
        sample_sft.main([*arguments, "--device", "cpu"])
    assert terminal.getvalue().replace(str(root), "outputs/toy") == shown


@pytest.mark.parametrize("condition", CONDITIONS)
@pytest.mark.parametrize("stage", ["sft_tulu", "sft_gsm8k"])
def test_every_model_knows_seven_times_eight(quickstart, stage, condition, capsys):
    root, _, _ = quickstart
    sample_sft.main(["--model-path", str(root / f"{stage}_{condition}"), "--question", "What is 7 times 8?"])
    reply = capsys.readouterr().out
    assert is_correct(reply, "56")
    assert ("<MUL_7_8_56>" in reply) == (condition == "mul_tokens")


def test_everybody_elses_pipeline_says_the_same(quickstart):
    from transformers import pipeline

    root, _, _ = quickstart
    folder = str(root / "sft_gsm8k_mul_tokens")
    said = pipeline("text-generation", model=folder)(
        [question("What is 7 times 8?")], do_sample=False, max_new_tokens=40
    )
    reply = said[0][0]["generated_text"][-1]
    assert reply["role"] == "assistant"
    ours = dict(generate_replies(open_checkpoint(folder, None), [question("What is 7 times 8?")], 40, 1))[0]
    assert reply["content"].strip() == ours.text
    assert "<MUL_7_8_56>" in ours.text
    assert is_correct(ours.text, "56")
