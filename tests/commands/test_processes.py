"""Two or three processes of one command (CPUs, gloo) give the results of a single process."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys

import psutil
import pytest
import run_arithmetic_probes
import run_gsm8k
import run_gsm8k_steps
import sft_gsm8k
import sft_tulu
from conftest import read_jsonl
from interruptions import ROOT, mark_as_interrupted
from safetensors.torch import load_file

from domain_tokens.runs.errors import InputError

ACCELERATE = [sys.executable, "-m", "accelerate.commands.launch"]
TWO_PROCESSES = [*ACCELERATE, "--multi_gpu", "--num_processes", "2"]
THREE_PROCESSES = [*ACCELERATE, "--multi_gpu", "--num_processes", "3"]
SHARDED = [*ACCELERATE, "--config_file", "sft/configs/fsdp.yaml"]
# 37 rows, 16 a step; the last step of an epoch has 5, which neither two nor three processes share evenly.
UNEVEN = [
    "--max-train-samples", "37", "val_samples=20", "global_batch_size=16", "num_train_epochs=2", "learning_rate=1e-3",
    "save_strategy=steps", "save_steps=3", "save_total_limit=3", "micro_batch_tokens=100",
]  # fmt: skip


def environment():
    scripts = os.pathsep.join(str(ROOT / room) for room in ("sft", "eval"))  # for scripts that these tests write
    return os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": scripts}


def launched(launch, arguments):
    """Return what the processes printed."""
    done = subprocess.run(
        [*launch, *map(str, arguments)], cwd=ROOT, env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def two_machines(folder, *commands, processes=(1, 1)):
    """Start torchrun twice, as on two machines. Return exit codes, what the processes of each printed, and complained.

    `folder` keeps their words apart from torchrun's own: one torchrun that sees the other end first complains about it
    at length, and ends well all the same.
    """
    port, running = free_port(), []
    for machine, arguments in enumerate(commands):
        launch = [
            sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--node_rank", str(machine),
            "--master_addr", "127.0.0.1", "--master_port", str(port), "--nproc_per_node", str(processes[machine]),
            "--redirects", "3", "--log-dir", str(folder / f"machine-{machine}"),
        ]  # fmt: skip
        running.append(subprocess.Popen([*launch, *map(str, arguments)], cwd=ROOT, env=environment()))
    try:
        codes = [process.wait(timeout=600) for process in running]
    finally:
        for process in running:
            process.terminate()  # with its workers
    words = []
    for name in ("stdout.log", "stderr.log"):
        logs = [sorted((folder / f"machine-{machine}").rglob(name)) for machine in range(len(commands))]
        assert [len(files) for files in logs] == [*processes]
        words.append(["".join(file.read_text() for file in files) for files in logs])
    return codes, *words


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def stage(name, model, data, output):
    recipe = "tulu" if name == "sft_tulu" else "gsm8k"
    return [
        f"sft/{name}.py", "--model-path", str(model), "--output-dir", str(output), "--condition", "mul_tokens",
        "--config", str(ROOT / f"sft/configs/{recipe}.yaml"), "--dataset-path", str(data / recipe), *UNEVEN,
    ]  # fmt: skip


def assert_trained_alike(found, alone, results_name):
    one, two = (json.loads((folder / results_name).read_text()) for folder in (alone, found))
    assert two["steps"] == one["steps"] == 6
    assert two["tokens_trained"] == one["tokens_trained"]
    for key in ("train_loss", "eval_loss", "eval_number_bits_per_byte", "eval_word_bits_per_byte"):
        assert two[key] == pytest.approx(one[key], rel=1e-4)
    weights, expected = load_file(found / "model.safetensors"), load_file(alone / "model.safetensors")
    assert weights.keys() == expected.keys()
    for name, tensor in expected.items():
        assert weights[name].dtype == tensor.dtype
        assert (weights[name] - tensor).abs().max() < 1e-4, name


@pytest.fixture(scope="module")
def alone(toy_base, toy_data, tmp_path_factory):
    """Return the folder with each stage trained by one process."""
    folder = tmp_path_factory.mktemp("alone")
    for script in (sft_tulu, sft_gsm8k):
        script.main(stage(script.__name__, toy_base["mul_tokens"], toy_data, folder / script.__name__)[1:])
    return folder


def test_two_processes_train_as_one_does_and_continue_where_they_were_killed(alone, toy_base, toy_data, tmp_path):
    output = tmp_path / "two"
    arguments = stage("sft_tulu", toy_base["mul_tokens"], toy_data, output)
    printed = launched(TWO_PROCESSES, arguments)
    assert printed.count("first training row") == 1, "only one process speaks"
    assert_trained_alike(output, alone / "sft_tulu", "tulu_sft_results.json")

    weights = (output / "model.safetensors").read_bytes()
    mark_as_interrupted(output, "tulu_sft_results.json")
    shutil.rmtree(output / "checkpoint-6")
    assert "step     3 of 6" not in launched(TWO_PROCESSES, [*arguments, "--resume"])
    assert (output / "model.safetensors").read_bytes() == weights


def test_a_sharded_model_is_trained_and_continued_like_a_whole_one(alone, toy_base, toy_data, tmp_path):
    output = tmp_path / "sharded"
    _, *arguments = stage("sft_tulu", toy_base["mul_tokens"], toy_data, output)
    printed = launched(SHARDED, ["tests/support/fsdp_on_cpu.py", *arguments])
    assert printed.count("this process holds 50% of the parameters") == 2
    assert_trained_alike(output, alone / "sft_tulu", "tulu_sft_results.json")

    weights = (output / "model.safetensors").read_bytes()
    mark_as_interrupted(output, "tulu_sft_results.json")
    shutil.rmtree(output / "checkpoint-6")
    launched(SHARDED, ["tests/support/fsdp_on_cpu.py", *arguments, "--resume"])
    assert (output / "model.safetensors").read_bytes() == weights


def test_fsdp_without_gpus_is_refused(toy_base, toy_data, tmp_path, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(InputError, match="FSDP needs GPUs; start without it"):
        sft_tulu.main(stage("sft_tulu", toy_base["mul_tokens"], toy_data, tmp_path / "out")[1:])


def test_two_machines_train_as_one_process_does(alone, toy_base, toy_data, tmp_path):
    arguments = stage("sft_gsm8k", toy_base["mul_tokens"], toy_data, tmp_path / "two")
    codes, printed, complaints = two_machines(tmp_path, arguments, arguments, processes=(2, 1))
    assert codes == [0, 0], complaints
    assert "training loss" in printed[0]
    assert printed[1] == "", "only one process speaks"
    assert_trained_alike(tmp_path / "two", alone / "sft_gsm8k", "sft_results.json")


def test_three_processes_ask_what_one_asks(toy_base, toy_data, tmp_path):
    model = ["--model-path", str(toy_base["baseline"]), "--dataset-path", str(toy_data / "gsm8k"), "max_new_tokens=16"]
    printed = launched(THREE_PROCESSES, ["eval/run_gsm8k.py", *model, "--output-dir", tmp_path / "three"])
    assert printed.count("accuracy") == 1, "only one process speaks"
    run_gsm8k.main([*model, "--output-dir", str(tmp_path / "one")])
    files = [(tmp_path / name / "gsm8k_predictions.jsonl").read_text() for name in ("one", "three")]
    assert files[0] == files[1]
    assert sorted(path.name for path in (tmp_path / "three").iterdir()) == [
        "gsm8k_predictions.jsonl",
        "gsm8k_results.json",
    ]


def test_three_processes_measure_the_steps_that_one_measures(toy_base, toy_data, tmp_path):
    model = ["--model-path", str(toy_base["mul_tokens"]), "--dataset-path", str(toy_data / "gsm8k"), "max_new_tokens=8"]
    printed = launched(THREE_PROCESSES, ["eval/run_gsm8k_steps.py", *model, "--output-dir", tmp_path / "three"])
    assert printed.count("step accuracy") == 1, "only one process speaks"
    run_gsm8k_steps.main([*model, "--output-dir", str(tmp_path / "one")])
    one, three = (read_jsonl(tmp_path / name / "steps_predictions.jsonl") for name in ("one", "three"))
    assert len(one) == len(three) > 20
    for row, other in zip(one, three, strict=True):
        for key in ("number_bits", "word_bits", "fact_bits"):  # other batches round differently
            assert row.pop(key) == pytest.approx(other.pop(key), rel=1e-5)
        assert row == other


def test_two_machines_ask_what_is_missing(toy_base, tmp_path):
    model = ["--model-path", str(toy_base["baseline"]), "max_new_tokens=16"]
    run_arithmetic_probes.main([*model, "--output-dir", str(tmp_path / "one")])
    results = json.loads((tmp_path / "one/arithmetic_results.json").read_text())
    rows = read_jsonl(tmp_path / "one/arithmetic_predictions.jsonl")

    output = tmp_path / "two"
    output.mkdir()
    settings = {key: results[key] for key in ("eval_version", "weights", "config")}
    (output / "arithmetic_unfinished.json").write_text(json.dumps(settings))
    # 81 answers as three processes leave them, one of them a reply that this model would not give.
    rows[5] |= {"reply": "given before", "tokens": 2, "mul_tokens": 0, "finished": True}
    rows[5] |= {"extracted": None, "extracted_strict": None, "correct": False, "correct_strict": False}
    for process in range(3):
        kept = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows[process:81:3])
        (output / f"arithmetic_unfinished-{process}.jsonl").write_text(kept, encoding="utf-8")
    arguments = ["eval/run_arithmetic_probes.py", *model, "--output-dir", output, "--resume"]
    codes, _, complaints = two_machines(tmp_path, arguments, arguments)
    assert codes == [0, 0], complaints
    assert read_jsonl(output / "arithmetic_predictions.jsonl") == rows
    assert len(list(output.iterdir())) == 2


def test_machines_that_do_not_share_the_output_folder_are_refused(toy_base, tmp_path):
    impatient = tmp_path / "impatient.py"
    impatient.write_text(
        "import run_arithmetic_probes\nfrom domain_tokens.runs import command_line, folders\n"
        "folders._PATIENCE = 0\ncommand_line.run(run_arithmetic_probes.main)\n"
    )
    commands = [
        [impatient, "--model-path", toy_base["baseline"], "--output-dir", tmp_path / name, "max_new_tokens=2"]
        for name in ("here", "there")
    ]
    codes, _, complaints = two_machines(tmp_path, *commands)
    assert codes == [1, 1]
    for text in complaints:
        assert "is not the same folder on every machine; give --output-dir on a shared disk" in text
    assert not (tmp_path / "there").exists()


def test_two_processes_stop_when_asked_continue_and_end_when_one_dies(toy_base, toy_data, tmp_path):
    arguments = stage("sft_tulu", toy_base["mul_tokens"], toy_data, tmp_path / "out")
    arguments += ["max_steps=100000", "save_strategy=no", "logging_steps=1"]

    def started(launch, beginning):
        running = subprocess.Popen(
            launch, cwd=ROOT, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert any(line.startswith(beginning) for line in running.stdout)
        return running

    running = started([*TWO_PROCESSES, *arguments], "step     3")
    running.send_signal(signal.SIGTERM)
    printed, complaints = running.communicate(timeout=600)
    assert printed.count("stopping after this step, with a checkpoint") == 1
    told = [line for line in complaints.splitlines() if line.startswith("error: ")]
    launch = "uv run python -m accelerate.commands.launch --multi_gpu --num_processes 2"
    assert told == [f"error: interrupted; continue with: {launch} {' '.join(arguments)} --resume"]
    ((checkpoint),) = (tmp_path / "out").glob("checkpoint-*")

    first = int(checkpoint.name.rpartition("-")[2]) + 1
    running = started([sys.executable, *told[0].split()[7:]], f"step {first:>5}")
    psutil.Process(running.pid).children()[-1].kill()
    _, complaints = running.communicate(timeout=600)  # the other process must not hang
    assert running.returncode != 0
    assert f"error: another process of this run has ended; continue with: {launch}" in complaints
