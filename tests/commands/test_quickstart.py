"""The README's first command, whole: both conditions learn, and everything promised is there afterwards.

Takes some minutes; the tests that need a model which has learned something use what it leaves.
"""

import json
import re
import resource
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import run_gsm8k
import sample_sft
from conftest import PAIR, Terminal, read_jsonl
from documents import documentation
from lm_harness import FLEXIBLE, STRICT, gsm8k_task, needs_harness
from pydantic import TypeAdapter

from domain_tokens import is_correct
from domain_tokens.evaluation.replies import reply_to, tokenize_prompts
from domain_tokens.models.folder import open_model
from domain_tokens.prompt import question_conversation
from domain_tokens.runs.results_schema import EvaluationResults, ModelRecord, Prediction, TrainingResults

ROOT = Path(__file__).parents[2]
MINUTES = 6  # of two cores


def run_experiment(root):
    """Run the quickstart's own config into another folder. Return what it showed, and its seconds of computing.

    How long a busy machine lets it wait says nothing of the quickstart.
    """
    config = (ROOT / "scripts/configs/toy.yaml").read_text().replace("outputs/toy", str(root))
    (root / "toy.yaml").write_text(config)
    command = [sys.executable, "scripts/run_experiment.py", "--config", str(root / "toy.yaml")]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return shown, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


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
    assert seconds < 2 * 60 * MINUTES
    bar = re.compile(r".*\d+/\d+ \[.*(?:row|question|step)s?.*\]\s*")  # progress is all that belongs on stderr
    assert [line for line in re.split(r"[\r\n]+", shown.stderr) if line and not bar.fullmatch(line)] == []
    assert not re.search(r"warning|deprecat", shown.stdout, re.IGNORECASE)


@pytest.mark.parametrize("condition", PAIR)
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


@pytest.mark.parametrize(
    ("pattern", "schema", "count"),
    [
        ("*/*sft_results.json", TrainingResults, 4),
        ("*/domain_tokens.json", ModelRecord, 6),
        ("eval_*/*_results.json", EvaluationResults, 4),
        ("eval_*/*_predictions.jsonl", Prediction, 4),
    ],
)
def test_every_field_it_writes_is_described(quickstart, pattern, schema, count):
    """Validation drops the fields that a schema does not know."""
    paths = list(quickstart[0].glob(pattern))
    assert len(paths) == count
    for path in paths:
        for written in read_jsonl(path) if path.suffix == ".jsonl" else [json.loads(path.read_text())]:
            assert TypeAdapter(schema).validate_python(written) == written


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


@pytest.mark.parametrize("condition", PAIR)
def test_batched_replies_equal_one_by_one_replies(quickstart, condition):
    root, _, _ = quickstart
    checkpoint = open_model(str(root / f"sft_gsm8k_{condition}"), None)
    asked = [row["question"] for row in read_jsonl(root / "data/gsm8k/test.jsonl")[:20]]
    asked += ["What is 7 times 8?", "Hello", "List two colors.", "What is the capital of Peru?", "1+1 " * 40]
    prompts = tokenize_prompts(checkpoint, [question_conversation(text) for text in asked])
    batched = dict(reply_to(checkpoint, prompts, max_new_tokens=40, batch_size=25))
    assert len({len(reply.text) for reply in batched.values()}) > 3
    for i, prompt in enumerate(prompts):
        assert dict(reply_to(checkpoint, [prompt], 40, 1))[0] == batched[i], asked[i]
    assert batched == dict(reply_to(checkpoint, prompts, max_new_tokens=40, batch_size=7))


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


@pytest.mark.parametrize("condition", PAIR)
@pytest.mark.parametrize("stage", ["sft_tulu", "sft_gsm8k"])
def test_every_model_knows_seven_times_eight(quickstart, stage, condition, capsys):
    root, _, _ = quickstart
    sample_sft.main(["--model-path", str(root / f"{stage}_{condition}"), "--question", "What is 7 times 8?"])
    reply = capsys.readouterr().out
    assert is_correct(reply, "56")
    assert ("<MUL_7_8_56>" in reply) == (condition == "mul_tokens")


@pytest.mark.parametrize("condition", PAIR)
def test_everybody_elses_pipeline_gives_the_stored_replies(quickstart, condition):
    from transformers import pipeline

    root, _, _ = quickstart
    stored = read_jsonl(root / f"eval_{condition}/gsm8k_predictions.jsonl")[:10]
    limit = json.loads((root / f"eval_{condition}/gsm8k_results.json").read_text())["config"]["max_new_tokens"]
    said = pipeline("text-generation", model=str(root / f"sft_gsm8k_{condition}"))(
        [question_conversation(row["question"]) for row in stored], do_sample=False, max_new_tokens=limit
    )
    replies = [conversation[0]["generated_text"][-1] for conversation in said]
    assert {reply["role"] for reply in replies} == {"assistant"}
    assert [reply["content"].strip() for reply in replies] == [row["reply"] for row in stored]
    assert len({row["reply"] for row in stored}) > 5
    assert any("<MUL_" in row["reply"] for row in stored) == (condition == "mul_tokens")


@needs_harness
def test_lm_eval_as_the_readme_shows_it_gives_the_verdicts_of_the_evaluation(quickstart, tmp_path, monkeypatch):
    root, _, _ = quickstart
    (arguments,) = re.findall(r"^uv run --group agreement lm_eval (.*)", documentation(), re.MULTILINE)
    (tmp_path / "data").mkdir()
    (tmp_path / "data/gsm8k").symlink_to(root / "data/gsm8k")
    (tmp_path / "eval").symlink_to(ROOT / "eval")
    (tmp_path / "outputs").symlink_to(root)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    command = [str(Path(sys.executable).with_name("lm_eval")), *shlex.split(arguments)]
    shown = subprocess.run(command, capture_output=True, text=True, check=False)
    assert shown.returncode == 0, shown.stderr[-3000:]
    model, output = "outputs/sft_gsm8k_mul_tokens", tmp_path / "ours"
    run_gsm8k.main(["--model-path", model, "--output-dir", str(output), "--dataset-path", "data/gsm8k"])

    ours = read_jsonl(output / "gsm8k_predictions.jsonl")
    (file,) = Path("outputs/lm_eval").rglob("samples_gsm8k_*.jsonl")
    samples = read_jsonl(file)
    assert len(ours) == 200
    assert 20 < sum(row["correct"] for row in ours) < 180
    for name, verdict in ((STRICT, "correct_strict"), (FLEXIBLE, "correct")):
        theirs = sorted((row for row in samples if row["filter"] == name), key=lambda row: row["doc_id"])
        for sample, row in zip(theirs, ours, strict=True):
            prompt = sample["arguments"]["gen_args_0"]["arg_0"]
            assert prompt == f"User: {row['question']}\nAssistant:"
            assert sample["resps"][0][0].strip() == row["reply"]
            assert bool(sample["exact_match"]) == row[verdict], row


@needs_harness
def test_lm_eval_gives_the_same_unfinished_replies(quickstart, tmp_path):
    from lm_eval import simple_evaluate

    root, _, _ = quickstart
    model = ["--model-path", str(root / "sft_gsm8k_baseline"), "--output-dir", str(tmp_path)]
    run_gsm8k.main([*model, "--dataset-path", str(root / "data/gsm8k"), "max_new_tokens=30"])
    ours = read_jsonl(tmp_path / "gsm8k_predictions.jsonl")
    assert 20 < sum(row["finished"] for row in ours) < 180
    task, manager = gsm8k_task(read_jsonl(root / "data/gsm8k/test.jsonl"))
    evaluated = simple_evaluate(
        "hf", {"pretrained": str(root / "sft_gsm8k_baseline")}, [task], task_manager=manager, batch_size=50,
        device="cpu", gen_kwargs={"max_gen_toks": 30},
        apply_chat_template=True, bootstrap_iters=0,
    )  # fmt: skip
    samples = [sample for sample in evaluated["samples"]["gsm8k"] if sample["filter"] == STRICT]
    for sample, row in zip(sorted(samples, key=lambda sample: sample["doc_id"]), ours, strict=True):
        assert sample["resps"][0][0].strip() == row["reply"]
        assert bool(sample["exact_match"]) == row["correct_strict"], row
