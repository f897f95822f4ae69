"""Kill a toy training run and an evaluation at random moments, continue each, and compare with runs left alone.

Weights, losses and predictions must be the same bit for bit. The test suite runs a short form; the long one:

  uv run python tests/support/interruptions.py --kills 20 --eval-kills 10
"""

import argparse
import json
import multiprocessing
import os
import random
import runpy
import shutil
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
TRAINING = [
    "--resume", "--condition", "mul_tokens", "global_batch_size=8", "data.max_length=128", "val_samples=40",
    "max_steps=40", "save_steps=4", "eval_steps=8", "logging_steps=3", "learning_rate=1e-3", "use_cpu=true",
]  # fmt: skip
EVALUATION = ["--resume", "max_new_tokens=12", "batch_size=16"]
_IDENTITY = ("condition", "start_weights", "start_architecture", "inject_mul_tokens", "config")
SAME = ("train_loss", "eval_loss", "loss_curves", "steps", "tokens_trained", "weights")


class Command:
    """A script that is started over and over, with torch and transformers imported once for all."""

    def __init__(self, arguments: list[str], log: Path):
        self.arguments, self.log = arguments, log
        self.context = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload(["domain_tokens.training.stage", "domain_tokens.evaluation.run"])

    def start(self) -> multiprocessing.Process:
        process = self.context.Process(target=_as_main, args=(self.arguments, str(self.log)))
        process.start()
        return process

    def finish(self) -> float:
        """Seconds it took."""
        began = time.perf_counter()
        process = self.start()
        process.join()
        assert process.exitcode == 0, f"{self.arguments[0]} failed:\n{self.log.read_text()[-3000:]}"
        return time.perf_counter() - began

    def kill_after(self, seconds: float) -> bool:
        """Whether it was still running then."""
        process = self.start()
        process.join(seconds)
        if process.exitcode is not None:
            assert process.exitcode == 0, f"{self.arguments[0]} failed:\n{self.log.read_text()[-3000:]}"
            return False
        process.kill()
        process.join()
        return True


def _as_main(arguments: list[str], log: str) -> None:
    with Path(log).open("a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.argv = arguments
    runpy.run_path(str(ROOT / arguments[0]), run_name="__main__")


def kill_and_continue(command: Command, output: Path, outcome, kills: int, rng: random.Random, say=print) -> int:
    """Kill the command `kills` times in all, at any moment of a whole run, and compare every finished run's outcome.

    Returns how many runs were finished and compared.
    """
    seconds = command.finish()
    expected = outcome(output)
    shutil.rmtree(output)
    killed = compared = 0
    while killed < kills:
        moment = rng.uniform(0, seconds)
        if command.kill_after(moment):
            killed += 1
            say(f"kill {killed} after {moment:.2f} of {seconds:.2f} s: {_left(output)}")
            if killed < kills and rng.random() < 0.5:
                continue  # and be killed once more before it is done
            command.finish()
        assert outcome(output) == expected, f"{output} differs from the run that was left alone"
        compared += 1
        shutil.rmtree(output)
    return compared


def mark_as_interrupted(output: Path, results_name: str) -> dict:
    """Make a finished stage look as if it had been killed before it saved its model. Returns its results."""
    results = json.loads((output / results_name).read_text())
    settings = {key: results[key] for key in _IDENTITY}
    settings["rows"] = {"digests": results["rows"]["digests"]}
    (output / "unfinished_run.json").write_text(json.dumps(settings))
    for name in (results_name, "model.safetensors", "config.json", "domain_tokens.json"):
        (output / name).unlink()
    return results


def _left(output: Path) -> str:
    names = sorted(path.name for path in output.glob("*") if path.name.startswith(("checkpoint-", "arith", ".")))
    return ", ".join(names) or "nothing yet"


def trained(output: Path) -> dict:
    results = json.loads((output / "tulu_sft_results.json").read_text())
    left = sorted(path.name for path in output.iterdir() if not path.name.startswith("checkpoint-"))
    return {key: results[key] for key in SAME} | {"model": (output / "model.safetensors").read_bytes(), "files": left}


def evaluated(output: Path) -> dict:
    results = json.loads((output / "arithmetic_results.json").read_text())
    predictions = (output / "arithmetic_predictions.jsonl").read_bytes()
    left = sorted(path.name for path in output.iterdir())
    return {"metrics": results["metrics"], "predictions": predictions, "files": left}


def training(base: Path, data: Path, folder: Path) -> Command:
    arguments = [
        "--model-path",
        str(base),
        "--output-dir",
        str(folder / "trained"),
        "--dataset-path",
        str(data / "tulu"),
    ]
    config = ["--config", "sft/configs/tulu.yaml"]
    return Command(["sft/sft_tulu.py", *arguments, *config, *TRAINING], folder / "training.log")


def evaluation(base: Path, folder: Path) -> Command:
    arguments = ["--model-path", str(base), "--output-dir", str(folder / "evaluated")]
    return Command(["eval/run_arithmetic_probes.py", *arguments, *EVALUATION], folder / "evaluation.log")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20, help="of the training run (default: 20)")
    parser.add_argument("--eval-kills", type=int, default=10, help="of the evaluation (default: 10)")
    parser.add_argument("--seed", type=int, default=0, help="draws the moments (default: 0)")
    args = parser.parse_args()
    rng = random.Random(args.seed)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        os.environ["HF_HOME"] = str(folder / "cache")
        for arguments in (
            ["scripts/make_toy_data.py", "--output-dir", str(folder / "data"), "--chats", "400", "--problems", "40"],
            ["scripts/prepare_base.py", "--toy", "--condition", "mul_tokens", "--output-dir", str(folder / "base")],
        ):
            Command(arguments, folder / "setup.log").finish()
        command = training(folder / "base", folder / "data", folder)
        compared = kill_and_continue(command, folder / "trained", trained, args.kills, rng)
        print(f"training: {args.kills} kills, {compared} runs finished, each bit for bit the one left alone")
        command = evaluation(folder / "base", folder)
        compared = kill_and_continue(command, folder / "evaluated", evaluated, args.eval_kills, rng)
        print(f"evaluation: {args.eval_kills} kills, {compared} runs finished, each byte for byte the one left alone")


if __name__ == "__main__":
    main()
