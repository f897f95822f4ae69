"""What a user types and sees: help at once, one line and an exit code for what is wrong, documents that are true."""

import re
import resource
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import run_experiment
from documents import documented_commands

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted(path for room in ("sft", "eval", "sample", "scripts") for path in (ROOT / room).glob("*.py"))


def script(*arguments):
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_help_comes_at_once_with_an_example_whose_files_exist(path):
    seconds = []  # of computing: how long a busy machine lets it wait says nothing of the script
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        shown = script(str(path), "--help")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert shown.returncode == 0
    assert min(seconds) < 0.5
    assert f"uv run python {path.relative_to(ROOT)}" in shown.stdout
    for name in re.findall(r"\S+\.(?:py|yaml)\b", shown.stdout):
        assert (ROOT / name).exists() or (path.parent / name).exists(), name


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("sft/sft_tulu.py", "required: --model-path, --output-dir, --condition, --config"),
        ("sft/sft_gsm8k.py --model-path x --output-dir y --condition neither --config z", "invalid choice: 'neither'"),
        ("sft/sft_gsm8k.py --model-pth x", "unrecognized arguments: --model-pth (did you mean --model-path?)"),
        ("eval/run_gsm8k.py --output-dir y", "required: --model-path"),
        (
            "scripts/compare_runs.py --baseline-dir none --mul-tokens-dir none --output-path x.json",
            "no complete evaluation",
        ),
        ("scripts/check_contamination.py --questions x", "required: --train-data"),
        ("scripts/run_experiment.py --config none.yaml", "config none.yaml does not exist"),
        ("scripts/make_toy_data.py --output-dir x --chats 0", "--chats is 0, expected at least 1"),
        ("sample/sample_sft.py --model-path x", "one of the arguments --question --interactive is required"),
        ("sample/sample_sft.py --model-path x --question hi --interactive", "not allowed with argument"),
        ("sample/sample_sft.py --model-path x --question hi --greedy --temperature 1", "--greedy gives one reply"),
        ("sample/sample_sft.py --model-path x --question hi --token t", "unrecognized arguments: --token"),
        ("sample/sample_sft.py --model-path x --question ''", "--question is empty"),
        ("sample/sample_sft.py --model-path x --question hi --num-samples 0", "--num-samples is 0"),
        ("sample/sample_sft.py --model-path x --question hi --max-new-tokens -1", "--max-new-tokens is -1"),
        ("sample/sample_sft.py --model-path x --interactive --json", "belong to --question"),
        ("scripts/upload_to_hf.py --model-path a b --repo-name o/a", "2 --model-path and 1 --repo-name"),
        ("scripts/upload_to_hf.py --model-path a b --repo-name o/a o/a", "o/a is given more than once"),
        ("scripts/upload_to_hf.py --model-path a --repo-name o/a --token t", "unrecognized arguments: --token"),
        ("scripts/load_from_hf.py", "one of the arguments --list --all --models is required"),
        ("scripts/load_from_hf.py --list --token t", "unrecognized arguments: --token"),
        ("scripts/load_from_hf.py --list --registry none.yaml", "none.yaml does not exist"),
        ("scripts/load_from_hf.py --models sft_tulu_basline", "did you mean sft_tulu_baseline?"),
        ("scripts/load_from_hf.py --list --namespace a/b", "owner is 'a/b'"),
    ],
)
def test_wrong_usage_is_one_line_on_stderr_and_exit_code_2(arguments, message):
    shown = script(*shlex.split(arguments))
    assert shown.returncode == 2
    assert message in shown.stderr
    assert shown.stderr.count("\n") == 1
    assert "Traceback" not in shown.stderr + shown.stdout


def test_a_failing_step_stops_the_experiment_with_its_own_message(tmp_path):
    config = (ROOT / "scripts/configs/experiment.yaml").read_text().replace("outputs", str(tmp_path))
    (tmp_path / "experiment.yaml").write_text(config)
    shown = script("scripts/run_experiment.py", "--config", str(tmp_path / "experiment.yaml"))
    assert shown.returncode == 2
    first, second = shown.stderr.splitlines()
    assert first.startswith(f"error: model folder {tmp_path}/hf_baseline_10b does not exist")
    assert second.startswith("error: step 1 (sft_tulu, baseline) failed")
    assert "[2/" not in shown.stdout


def test_the_real_experiment_runs_the_documented_commands(capsys):
    run_experiment.main(["--config", str(ROOT / "scripts/configs/experiment.yaml"), "--dry-run"])
    printed = capsys.readouterr().out
    for expected in (
        "sft/sft_tulu.py --model-path outputs/hf_baseline_10b --output-dir outputs/sft_tulu_baseline",
        "sft/sft_gsm8k.py --model-path outputs/sft_tulu_mul_tokens --output-dir outputs/sft_gsm8k_mul_tokens",
        "eval/run_gsm8k.py --model-path outputs/sft_gsm8k_baseline --output-dir outputs/eval_baseline",
        "eval/run_arithmetic_probes.py --model-path outputs/sft_gsm8k_mul_tokens --output-dir outputs/eval_mul_tokens",
        "scripts/compare_runs.py --baseline-dir outputs/eval_baseline --mul-tokens-dir outputs/eval_mul_tokens "
        "--output-path outputs/comparison.json",
        "scripts/make_report.py outputs",
    ):
        assert expected in printed
    assert len(re.findall(r"^\$ uv run python", printed, re.MULTILINE)) == 10


def test_every_command_of_the_readme_is_one_the_scripts_take(capsys):
    commands = [shlex.split(line, comments=True) for line in documented_commands() if line.startswith("uv run python ")]
    assert len(commands) > 8
    for command in commands:
        path = ROOT / command[3]
        module = __import__(path.stem)
        module.parse_args(command[4:])
        for name in command[4:]:
            if name.endswith(".yaml"):
                assert (ROOT / name).is_file(), name


def test_no_module_of_the_package_prints_and_only_one_parses_arguments():
    texts = {path.name: path.read_text(encoding="utf-8") for path in (ROOT / "domain_tokens").rglob("*.py")}
    assert not [name for name, text in texts.items() if re.search(r"\bprint\(", text)]
    assert [name for name, text in texts.items() if "import argparse" in text] == ["command.py"]


def test_the_readmes_python_is_true():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    assert block.count("assert") >= 4
    exec(block, {})
