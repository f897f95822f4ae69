"""What a user types and sees: help at once, one line and an exit code for what is wrong, documents that are true."""

import importlib
import os
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


def script(*arguments, **environment):
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, check=False)


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


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"LOCAL_RANK": "1"}, "--chats is 0, expected at least 1"),  # left over: there is one process only
        ({"LOCAL_RANK": "1", "WORLD_SIZE": "1", "RANK": "0"}, "--chats is 0, expected at least 1"),
        ({"WORLD_SIZE": "abc"}, "WORLD_SIZE is 'abc', expected a number"),
        ({"WORLD_SIZE": "-2", "LOCAL_RANK": "1"}, "WORLD_SIZE is '-2', expected a number"),
        ({"RANK": "1.5"}, "RANK is '1.5', expected a number"),
        ({"RANK": "1"}, "WORLD_SIZE is 1 and RANK 1, expected a rank below the size; unset both"),
        ({"WORLD_SIZE": "0"}, "WORLD_SIZE is 0 and RANK 0, expected a rank below the size"),
        ({"WORLD_SIZE": "2"}, "WORLD_SIZE is 2, but MASTER_ADDR is not set; unset WORLD_SIZE"),
        ({"HF_HOME": "~nobody-here/x"}, "~nobody-here/x: there is no such home folder"),
    ],
)
def test_a_wrong_environment_is_one_line_and_never_silence(variables, message):
    shown = script("scripts/make_toy_data.py", "--output-dir", "never-made", "--chats", "0", **variables)
    assert shown.returncode == 2
    assert message in shown.stderr
    assert shown.stderr.count("\n") == 1


def test_the_second_of_two_processes_leaves_the_first_to_say_what_both_find():
    where = {"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1", "MASTER_ADDR": "localhost"}
    shown = script("scripts/make_toy_data.py", "--output-dir", "never-made", "--chats", "0", **where)
    assert (shown.returncode, shown.stderr) == (2, "")


STAGE = "--model-path ~/a --output-dir ~/b --condition baseline --config ~/c.yaml --dataset-path ~/d"
ASKED = "--model-path ~/a --output-dir ~/b --config ~/c.yaml"


@pytest.mark.parametrize(
    "command",
    [
        f"sft_tulu {STAGE}", f"sft_gsm8k {STAGE}", f"run_gsm8k {ASKED} --dataset-path ~/d",
        f"run_gsm8k_steps {ASKED} --dataset-path ~/d", f"run_arithmetic_probes {ASKED}",
        "sample_sft --model-path ~/a --question hi",
        "prepare_base --source ~/a --tokenizer ~/b --output-dir ~/c --condition baseline",
        "run_experiment --config ~/a.yaml", "make_toy_data --output-dir ~/a", "make_report ~/a --output-path ~/b.html",
        "show_progress ~/a --write ~/b.md",
        "compare_runs --baseline-dir ~/a ~/b --mul-tokens-dir ~/c ~/d --output-path ~/e",
        "check_contamination --train-data ~/a ~/b --questions ~/c --output-path ~/d",
        "benchmark --train-data ~/a --model-path ~/b --questions ~/c --tokenizer ~/d --output-path ~/e",
        "load_from_hf --all --output-root ~/a --registry ~/b.yaml",
        "upload_to_hf --model-path ~/a ~/b --repo-name o/a o/b",
    ],
)  # fmt: skip
def test_a_home_folder_is_found_for_every_path_a_user_gives(command, monkeypatch):
    monkeypatch.setenv("HOME", "/home/of-nobody")
    name, *arguments = command.split()
    args = vars(importlib.import_module(name).parse_args([word.replace("~/", "~/x/") for word in arguments]))
    given = [each for value in args.values() for each in (value if isinstance(value, list) else [value])]
    paths = [value for value in given if isinstance(value, str) and "/x/" in value]
    assert len(paths) == command.count("~")
    assert all(path.startswith("/home/of-nobody/x/") for path in paths)


def test_only_sample_sft_prints_for_itself():
    """Everything else goes through `say`, which shows control characters and never sends them."""
    assert [path.name for path in SCRIPTS if re.search(r"\bprint\(", path.read_text())] == ["sample_sft.py"]


def test_a_name_with_a_terminals_commands_is_shown_and_not_obeyed(tmp_path):
    name = "a\x1b]0;title\x07\u202eb"
    shown = script("scripts/make_toy_data.py", "--output-dir", str(tmp_path / name), "--chats", "1", "--problems", "1")
    assert shown.returncode == 0
    assert r"/a\x1b]0;title\x07\u202eb/tulu/train.jsonl" in shown.stdout
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", shown.stdout + shown.stderr)


def test_missing_start_models_are_said_before_anything_is_loaded(tmp_path):
    config = (ROOT / "scripts/configs/experiment.yaml").read_text().replace("outputs", str(tmp_path))
    (tmp_path / "experiment.yaml").write_text(config)
    shown = script("scripts/run_experiment.py", "--config", str(tmp_path / "experiment.yaml"))
    assert shown.returncode == 2
    (line,) = shown.stderr.splitlines()
    assert line.startswith(f"error: model folder {tmp_path}/hf_baseline_10b does not exist")
    assert "prepare_base.py makes it" in line
    assert "Loading" not in shown.stdout


def test_a_failing_step_stops_the_experiment_with_its_own_message(tmp_path):
    config = (ROOT / "scripts/configs/experiment.yaml").read_text().replace("outputs", str(tmp_path))
    (tmp_path / "experiment.yaml").write_text(config)
    for name in ("hf_baseline_10b", "hf_mul_tokens_10b"):
        (tmp_path / name).mkdir()
    shown = script("scripts/run_experiment.py", "--config", str(tmp_path / "experiment.yaml"))
    assert shown.returncode == 2
    first, second = shown.stderr.splitlines()
    assert first.startswith(f"error: model folder {tmp_path}/hf_baseline_10b holds no config.json")
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


def test_one_module_of_the_package_prints_and_one_parses_arguments():
    texts = {path.name: path.read_text(encoding="utf-8") for path in (ROOT / "domain_tokens").rglob("*.py")}
    assert [name for name, text in texts.items() if re.search(r"\bprint\(", text)] == ["terminal.py"]
    assert [name for name, text in texts.items() if "import argparse" in text] == ["command_line.py"]


def test_the_readmes_python_is_true():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    assert block.count("assert") >= 4
    exec(block, {})
