"""Run the whole experiment: both conditions, both stages, both evaluations, the comparison and the report.

Without arguments the toy quickstart, which learns in minutes on two CPU cores, into outputs/toy/. Finished steps are
left as they are and interrupted ones continued, so the same command can be given again at any time.

Example:
  uv run python scripts/run_experiment.py
  uv run python scripts/run_experiment.py --seeds 0 1 2
  uv run python scripts/run_experiment.py --config scripts/configs/experiment.yaml
"""

import argparse
import multiprocessing
import os
import runpy
import shlex
import sys
import time
from pathlib import Path
from typing import NamedTuple

from domain_tokens.conditions import CONDITIONS
from domain_tokens.runs.command import CommandParser, run
from domain_tokens.runs.errors import InputError
from domain_tokens.runs.names import COMPARISON, REPORT, SFT_STAGES, eval_folder, seed_folder, stage_folder

ROOT = Path(__file__).parent.parent
TOY_CONFIG = "scripts/configs/toy.yaml"


class Step(NamedTuple):
    name: str
    command: list[str]  # a script, relative to the repository's root, and its arguments


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = CommandParser(__doc__)
    parser.add_argument("--config", default=TOY_CONFIG, help=f"experiment YAML (default: {TOY_CONFIG})")
    parser.add_argument("--seed", type=int, help="seed of every stage, in place of the configs' own")
    parser.add_argument(
        "--seeds", type=int, nargs="+", help="run everything once with each, in folders of their own, and compare all"
    )
    parser.add_argument("--dry-run", action="store_true", help="print the commands and stop")
    return parser.parse(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    from domain_tokens.runs.config import load_config
    from domain_tokens.runs.recipes import ExperimentConfig

    if args.seeds and args.seed is not None:
        raise InputError("--seed and --seeds contradict each other; give one of them")
    if args.seeds and len(set(args.seeds)) < len(args.seeds):
        raise InputError(f"--seeds {' '.join(map(str, args.seeds))} names one twice; each seed counts once")
    experiment = load_config(args.config, ExperimentConfig).config
    steps = plan(experiment, args.seed, args.seeds)
    print(f"{args.config}: {len(steps)} steps, into {experiment.output_root}/")
    if not args.dry_run:
        print("Loading torch and transformers, once for all steps ...", flush=True)
    started = time.perf_counter()
    for number, step in enumerate(steps, start=1):
        print(f"\n[{number}/{len(steps)}] {step.name}\n$ uv run python {shlex.join(step.command)}", flush=True)
        if args.dry_run:
            continue
        step_started = time.perf_counter()
        if code := _run_script(step.command):
            sys.stderr.write(f"error: step {number} ({step.name}) failed; mend it and give the same command again\n")
            sys.exit(code)
        print(f"[{number}/{len(steps)}] done in {time.perf_counter() - step_started:.0f} s", flush=True)
    if not args.dry_run:
        print(f"\nEverything in {(time.perf_counter() - started) / 60:.1f} minutes. What was written:")
        for path in written(experiment, args.seeds):
            print(f"  {path}")


def plan(experiment, seed: int | None, seeds: list[int] | None) -> list[Step]:
    """The steps in order. Every command can be given by hand."""
    root, steps = Path(experiment.output_root), []
    if experiment.base.source == "toy":
        steps.append(Step("toy data", ["scripts/make_toy_data.py", "--output-dir", f"{root / 'data'}"]))
    if seeds is None:
        steps += _plan_seed(experiment, root, seed)
    for each in seeds or ():
        own = _plan_seed(experiment, seed_folder(root, each), each)
        steps += [Step(f"{step.name}, seed {each}", step.command) for step in own]
    roots = _roots(experiment, seeds)
    folders = ["--baseline-dir", *(str(eval_folder(folder, "baseline")) for folder in roots)]
    folders += ["--mul-tokens-dir", *(str(eval_folder(folder, "mul_tokens")) for folder in roots)]
    output = ["--output-path", str(root / COMPARISON)]
    steps.append(Step("comparison", ["scripts/compare_runs.py", *folders, *output]))
    chosen = [] if seeds is None else ["--seeds", *map(str, seeds)]
    steps.append(Step("report", ["scripts/make_report.py", str(root), *chosen]))
    return steps


def _plan_seed(experiment, root: Path, seed: int | None) -> list[Step]:
    """Both conditions through all stages and evaluations, in folders below `root`."""
    steps = []
    seeded = [] if seed is None else ["--seed", str(seed)]
    for condition in CONDITIONS:
        model = getattr(experiment.base, condition)
        if experiment.base.source is not None:
            source = ["--source", experiment.base.source]
            if experiment.base.source == "toy":
                source = ["--toy", *seeded]
                if root != Path(experiment.output_root):  # random weights: each seed draws its own
                    model = str(root / Path(model).name)
            flags = ["--condition", condition, "--output-dir", model, "--resume"]
            steps.append(Step(f"start model, {condition}", ["scripts/prepare_base.py", *source, *flags]))
        for stage, script in (("sft_tulu", "sft/sft_tulu.py"), ("sft_gsm8k", "sft/sft_gsm8k.py")):
            folder = str(stage_folder(root, stage, condition))
            flags = ["--model-path", model, "--output-dir", folder, "--condition", condition, "--resume", *seeded]
            steps.append(Step(f"{stage}, {condition}", [script, *flags, *_stage_flags(getattr(experiment, stage))]))
            model = folder
        evaluations = (("eval_gsm8k", "eval/run_gsm8k.py"), ("eval_probes", "eval/run_arithmetic_probes.py"))
        for stage, script in evaluations:
            # Greedy replies need no seed, and the probes must be the same ones for every seed of training.
            flags = ["--model-path", model, "--output-dir", str(eval_folder(root, condition)), "--resume"]
            steps.append(Step(f"{stage}, {condition}", [script, *flags, *_stage_flags(getattr(experiment, stage))]))
    return steps


def written(experiment, seeds: list[int] | None) -> list[Path]:
    root = Path(experiment.output_root)
    folders = [
        folder
        for seed_root in _roots(experiment, seeds)
        for condition in CONDITIONS
        for folder in (
            *(stage_folder(seed_root, stage, condition) for stage in SFT_STAGES),
            eval_folder(seed_root, condition),
        )
    ]
    return [*folders, *sorted(root.glob("comparison*")), root / REPORT]


def _roots(experiment, seeds: list[int] | None) -> list[Path]:
    root = Path(experiment.output_root)
    return [root] if seeds is None else [seed_folder(root, seed) for seed in seeds]


def _stage_flags(stage) -> list[str]:
    dataset = [] if stage.dataset is None else ["--dataset-path", stage.dataset]
    return ["--config", stage.config, *dataset, *stage.overrides]


def _run_script(command: list[str]) -> int:
    """Run a script in a process of its own, exactly as `python script args` does. Returns its exit code.

    The processes are forked from one that has imported torch and transformers already; a fresh interpreter would
    spend a dozen seconds on that for every step.
    """
    # Asking how many GPUs there are must not initialise CUDA in the process that is forked.
    os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["domain_tokens.training.stage", "domain_tokens.evaluation.run", "domain_tokens.models.sources"]
    )
    process = context.Process(target=_as_main, args=(command,))
    process.start()
    try:
        process.join()
    except KeyboardInterrupt:  # the step may have something to save first
        process.terminate()
        process.join()
        raise
    return process.exitcode


def _as_main(command: list[str]) -> None:
    sys.argv = command
    runpy.run_path(str(ROOT / command[0]), run_name="__main__")


if __name__ == "__main__":
    run(main, can_resume=True)
