"""What is killed, stopped or half-written is continued as if nothing had happened."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import textwrap
import time

import interruptions
import pexpect
import pytest
import run_arithmetic_probes
import sft_tulu
from conftest import read_jsonl
from interruptions import ROOT

from domain_tokens.evaluation.replies import reply_to
from domain_tokens.evaluation.unfinished import UnfinishedAnswers
from domain_tokens.runs.errors import InputError
from domain_tokens.runs.folders import lock_run
from domain_tokens.runs.signals import StopRequest, continuing_command, run_has_begun


def test_training_that_is_killed_ends_bit_for_bit_the_same(toy_base, toy_data, tmp_path):
    command = interruptions.training(toy_base["mul_tokens"], toy_data, tmp_path)
    rng = random.Random(1)
    compared = interruptions.kill_and_continue(command, tmp_path / "trained", interruptions.trained, 3, rng)
    assert compared >= 1


def test_an_evaluation_that_is_killed_ends_byte_for_byte_the_same(toy_base, tmp_path):
    command = interruptions.evaluation(toy_base["mul_tokens"], tmp_path)
    rng = random.Random(2)
    compared = interruptions.kill_and_continue(command, tmp_path / "evaluated", interruptions.evaluated, 3, rng)
    assert compared >= 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_run_that_is_asked_to_stop_saves_a_checkpoint_and_says_how_to_go_on(toy_base, toy_data, tmp_path, number):
    arguments = interruptions.training(toy_base["mul_tokens"], toy_data, tmp_path).arguments
    arguments += ["save_strategy=no", "eval_strategy=epoch"]
    whole = interruptions.Command([*arguments, "--output-dir", str(tmp_path / "whole")], tmp_path / "log")
    whole.finish()
    running = subprocess.Popen(
        [sys.executable, *arguments], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    for line in running.stdout:
        if line.startswith("step     6"):
            running.send_signal(number)
            break
    printed, complaint = running.communicate(timeout=120)
    assert running.returncode == 1
    assert "stopping after this step, with a checkpoint" in printed
    output = tmp_path / "trained"
    ((checkpoint),) = output.glob("checkpoint-*")
    last = complaint.splitlines()[-1]
    assert (
        last
        == f"error: interrupted; continue with: uv run python {' '.join(arguments)}".replace(" --resume", "", 1)
        + " --resume"
    )
    assert int(checkpoint.name[11:]) < 40
    interruptions.Command(arguments, tmp_path / "log").finish()
    assert interruptions.trained(output) == interruptions.trained(tmp_path / "whole")


def test_a_run_whose_terminal_is_closed_saves_a_checkpoint(toy_base, toy_data, tmp_path):
    arguments = interruptions.training(toy_base["mul_tokens"], toy_data, tmp_path).arguments
    arguments += ["save_strategy=no", "eval_strategy=no", "max_steps=1000"]
    terminal = pexpect.spawn(sys.executable, arguments, cwd=str(ROOT), timeout=120)
    terminal.expect("step     6")
    os.close(terminal.child_fd)
    assert os.waitstatus_to_exitcode(os.waitpid(terminal.pid, 0)[1]) == 1
    ((checkpoint),) = (tmp_path / "trained").glob("checkpoint-*")
    assert int(checkpoint.name[11:]) < 1000


def test_nohup_keeps_a_run_going():
    said = []
    former = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopRequest(said.append) as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not stop.is_made
            os.kill(os.getpid(), signal.SIGTERM)
            assert stop.is_made
    finally:
        signal.signal(signal.SIGHUP, former)
    assert said == ["stopping after this step, with a checkpoint; once more stops at once"]


LOADING = {
    "before there is a command": """
        import sys, time
        sys.argv = ["eval/run_gsm8k.py"]
        import domain_tokens; print('now', flush=True); time.sleep(60)
    """,
    "in the first library of all": """
        import sys, time
        sys.argv = ["eval/run_gsm8k.py"]
        class Slow:
            def find_spec(self, name, *place):
                if name == 'regex':
                    print('now', flush=True); time.sleep(60)
        sys.meta_path.insert(0, Slow())
        import domain_tokens
    """,
    "in a library that makes another error of it": """
        def main():
            try:
                print('now', flush=True); time.sleep(60)
            except KeyboardInterrupt:
                raise ImportError('half of a library')
    """,
    "in a clean-up, where Python ignores it": """
        class Slow:
            def __del__(self):
                print('now', flush=True); time.sleep(60)
        def main():
            Slow()
            time.sleep(60)
    """,
}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("moment", LOADING)
def test_ctrl_c_while_libraries_load_is_one_line(moment, number):
    code = textwrap.dedent(LOADING[moment])
    if "def main" in code:
        code = f"import time; from domain_tokens.runs.command_line import run\n{code}\nrun(main)"
    elif number == signal.SIGTERM:
        pytest.skip("without a command, SIGTERM ends Python without a word")
    running = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert running.stdout.readline() == "now\n"
    running.send_signal(number)
    assert running.communicate(timeout=30)[1] == "error: interrupted\n"


@pytest.mark.parametrize("seconds", [0.2, 2, 5])
def test_ctrl_c_in_the_first_seconds_of_a_stage_is_one_line(tmp_path, seconds):
    """Counted from when the package has loaded: how long that takes depends on what else the machine does."""
    code = (
        "import runpy, sys; sys.argv = sys.argv[1:]; import domain_tokens.runs\n"
        "print('now', flush=True); runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    command = ["sft/sft_tulu.py", "--model-path", "none", "--output-dir", str(tmp_path / "out")]
    command += ["--condition", "baseline", "--config", "sft/configs/tulu.yaml", "max_steps=1"]
    running = subprocess.Popen(
        [sys.executable, "-c", code, *command], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert running.stdout.readline() == "now\n"
    time.sleep(seconds)
    running.send_signal(signal.SIGINT)
    complaint = running.communicate(timeout=180)[1]
    assert complaint.count("\n") == 1, complaint
    assert complaint.startswith(("error: interrupted", "error: model folder none does not exist"))


def test_who_is_left_of_two_processes_says_that_the_other_has_ended():
    code = (
        "import time; from domain_tokens.runs.command_line import run\n"
        "run(lambda: (print('now', flush=True), time.sleep(60)))"
    )
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=os.environ
            | {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "localhost"}
            | {"RANK": rank, "LOCAL_RANK": rank},
        )
        for rank in "01"
    ]  # fmt: skip
    for process in ranks:
        assert process.stdout.readline() == "now\n"
    os.kill(ranks[0].pid, signal.SIGKILL)
    os.waitid(os.P_PID, ranks[0].pid, os.WEXITED | os.WNOWAIT)
    ranks[1].send_signal(signal.SIGTERM)  # as a launcher does then
    said = ranks[1].communicate(timeout=30)[1]
    assert said == "error: another process of this run has ended; give the command again\n"
    ranks[0].communicate()


def test_a_checkpoint_that_was_never_finished_is_not_loaded(toy_base, toy_data, tmp_path, capsys):
    arguments = interruptions.training(toy_base["mul_tokens"], toy_data, tmp_path).arguments[1:]
    arguments += ["max_steps=8", "save_total_limit=3"]
    sft_tulu.main(arguments)
    output = tmp_path / "trained"
    weights = (output / "model.safetensors").read_bytes()
    interruptions.mark_as_interrupted(output, "tulu_sft_results.json")
    state = output / "checkpoint-8/trainer_state.json"
    state.write_text(state.read_text()[:-200])  # killed while writing it
    (output / "checkpoint-8/model.safetensors").write_bytes(b"half")
    shutil.copytree(output / "checkpoint-8", output / "checkpoint-9")
    (output / "checkpoint-9/trainer_state.json").unlink()
    capsys.readouterr()
    sft_tulu.main(arguments)
    printed = capsys.readouterr().out
    assert "step     6 of 8" in printed
    assert "step     3 of 8" not in printed
    assert (output / "model.safetensors").read_bytes() == weights


def test_an_interrupted_overwrite_is_continued_as_what_it_was_to_become(toy_base, tmp_path, monkeypatch):
    arguments = ["--model-path", str(toy_base["mul_tokens"]), "--output-dir", str(tmp_path)]
    run_arithmetic_probes.main([*arguments, "max_new_tokens=3"])
    asked = []

    def interrupted(checkpoint, prompts, *more):
        asked.append(len(prompts))
        for number, reply in enumerate(reply_to(checkpoint, prompts, *more)):
            if number == 100 and len(asked) == 1:
                raise KeyboardInterrupt
            yield reply

    monkeypatch.setattr("domain_tokens.evaluation.run.reply_to", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_arithmetic_probes.main([*arguments, "max_new_tokens=5", "--overwrite"])
    assert "--overwrite" not in continuing_command()
    assert (tmp_path / "arithmetic_results.json").exists(), "the old one, until there is a new one"
    with pytest.raises(InputError, match=r"made with config.max_new_tokens 5, now it is 3"):
        run_arithmetic_probes.main([*arguments, "max_new_tokens=3", "--resume"])

    # Of what was kept, some is damaged, and some was judged by other rules.
    kept = tmp_path / "arithmetic_unfinished-0.jsonl"
    lines = kept.read_bytes().splitlines()
    other = json.loads(lines[5]) | {"correct": "yes"}
    lines[:6] = [b"\0" * 40, lines[1][:30], b"{}", b"5", b'{"id": []}', json.dumps(other).encode()]
    kept.write_bytes(b"\n".join(lines) + b"\n\xff\xfe")
    run_arithmetic_probes.main([*arguments, "max_new_tokens=5", "--resume"])
    assert asked == [281, 281 - 100 + 6]
    alone = tmp_path / "alone"
    run_arithmetic_probes.main([*arguments[:2], "--output-dir", str(alone), "max_new_tokens=5"])
    name = "arithmetic_predictions.jsonl"
    assert (tmp_path / name).read_bytes() == (alone / name).read_bytes()


def test_a_command_that_is_stopped_before_it_has_begun_is_given_again_as_it_was(monkeypatch):
    monkeypatch.setattr("domain_tokens.runs.signals._has_begun", False)
    monkeypatch.setattr(sys, "argv", ["sft/sft_tulu.py", "--overwrite", "--seed", "7"])
    assert continuing_command() == "uv run python sft/sft_tulu.py --overwrite --seed 7"
    run_has_begun()
    assert continuing_command() == "uv run python sft/sft_tulu.py --seed 7 --resume"


def test_a_signal_after_the_last_words_adds_none(tmp_path):
    """A launcher ends the other processes of a run as soon as one has failed, while they leave for the same reason."""
    script = tmp_path / "failing.py"
    script.write_text(
        "import atexit, os, signal, time\n"
        "from domain_tokens.runs.command_line import run\n"
        "from domain_tokens.runs.errors import RunError\n"
        "def main():\n"
        "    atexit.register(lambda: (os.kill(os.getpid(), signal.SIGTERM), time.sleep(5)))\n"
        "    raise RunError('the disk is gone')\n"
        "run(main)\n"
    )
    done = subprocess.run([sys.executable, script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stderr == "error: the disk is gone\n"
    assert done.returncode != 0


def test_only_one_process_writes_a_run(tmp_path):
    mark = tmp_path / "unfinished_run.json"
    mark.write_text("{}")
    lock_run(mark)
    lock_run(mark)  # the same process may
    code = f"from pathlib import Path; from domain_tokens.runs.folders import lock_run; lock_run(Path({str(mark)!r}))"
    other = [sys.executable, "-c", code]
    done = subprocess.run(other, cwd=ROOT, capture_output=True, text=True, check=False)
    assert f"RunError: {tmp_path} is being written by another process; wait for it, or end it" in done.stderr
    assert mark.read_text() == "{}"
    mark.unlink()
    mark.write_text("{}")  # another run's
    subprocess.run(other, cwd=ROOT, check=True)


def test_kept_answers_survive_half_a_line(tmp_path):
    kept = UnfinishedAnswers(tmp_path, "gsm8k")
    kept.begin({"eval_version": 1}, resume=False)
    with kept:
        kept.add({"id": "a", "reply": "ü"})
        kept.add({"id": "b"})
    kept.own.write_bytes(kept.own.read_bytes() + b'{"id": "c", "reply": "\xc3')
    (tmp_path / "gsm8k_unfinished-1.jsonl").write_text('{"id": "d"}\n')
    again = UnfinishedAnswers(tmp_path, "gsm8k")
    again.begin({"eval_version": 1}, resume=True)
    assert [row["id"] for row in again.rows()] == ["a", "b", "d"]
    with again:
        again.add({"id": "e"})
    assert [row["id"] for row in again.rows()] == ["a", "b", "e", "d"]
    assert read_jsonl(kept.own)[0]["reply"] == "ü"
    again.begin({"eval_version": 1}, resume=False)
    assert again.rows() == []
    again.remove()
    assert list(tmp_path.iterdir()) == []
