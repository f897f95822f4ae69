"""Run the whole experiment: every condition through both stages, the evaluations, the comparison and the report.

Without arguments, run the toy quickstart into outputs/toy/: a few minutes on two CPU cores. Finished steps are left as
they are and interrupted ones continued, so the same command can be run again at any time.

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
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from domain_tokens.comparison.formats import seeds_in_words
from domain_tokens.runs.command_line import CommandParser, check_seed, run
from domain_tokens.runs.errors import InputError
from domain_tokens.runs.names import COMPARISON, REPORT, SFT_STAGES, eval_folder, seed_folder, stage_folder
from domain_tokens.runs.terminal import say

ROOT = Path(__file__).parent.parent
TOY_CONFIG = "scripts/configs/toy.yaml"
EVALUATION_SCRIPTS = {
    "eval_gsm8k": "eval/run_gsm8k.py",
    "eval_steps": "eval/run_gsm8k_steps.py",
    "eval_probes": "eval/run_arithmetic_probes.py",
}
TOY_ROWS = {"sft_tulu": "tulu", "sft_gsm8k": "gsm8k", "eval_gsm8k": "gsm8k", "eval_steps": "gsm8k"}  # what each reads
# The two conditions that compare_runs.py has flags for; any others are compared pair by pair.
PAIR = ("baseline", "mul_tokens")


class Step(NamedTuple):
    name: str
    command: list[str]  # a script, relative to the repository's root, and its arguments


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = CommandParser(__doc__)
    parser.add_path("--config", default=TOY_CONFIG, help=f"experiment YAML (default: {TOY_CONFIG})")
    parser.add_argument("--seed", type=int, help="seed of every stage, in place of the configs' own")
    parser.add_argument(
        "--seeds", type=int, nargs="+", help="run everything once with each, in folders of their own, and compare all"
    )
    parser.add_argument("--dry-run", action="store_true", help="print the commands and stop")
    parser.add_overrides()
    return parser.parse(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    from domain_tokens.runs.config import load_config
    from domain_tokens.runs.config_schema import ExperimentConfig

    if args.seeds and args.seed is not None:
        raise InputError("--seed and --seeds contradict each other; give one of them")
    experiment = load_config(args.config, ExperimentConfig, args.overrides).config
    seeds = args.seeds or (experiment.seeds if args.seed is None else None)
    for each in args.seeds or ():
        check_seed("--seeds", each)
    if seeds and len(set(seeds)) < len(seeds):
        named = "--seeds" if args.seeds else "seeds:"
        raise InputError(f"{named} {' '.join(map(str, seeds))} names one twice; each seed counts once")
    check_stages(experiment, is_seeded=bool(seeds) or args.seed is not None, skip_missing=args.dry_run)
    steps = plan(experiment, args.seed, seeds)
    say(f"{args.config}: {len(steps)} steps, into {experiment.output_root}/")
    if not args.dry_run:
        check_start_models(experiment)
        say("Loading torch and transformers, once for all steps ...")
    started = time.perf_counter()
    for number, step in enumerate(steps, start=1):
        say(f"\n[{number}/{len(steps)}] {step.name}\n$ uv run python {shlex.join(step.command)}")
        if args.dry_run:
            continue
        step_started = time.perf_counter()
        if code := _run_script(step.command):
            sys.stderr.write(f"error: step {number} ({step.name}) failed; fix it and run the same command again\n")
            sys.exit(code)
        say(f"[{number}/{len(steps)}] done in {time.perf_counter() - step_started:.0f} s")
    if not args.dry_run:
        say(f"\nEverything in {(time.perf_counter() - started) / 60:.1f} minutes. What was written:")
        for line in written(experiment, seeds):
            say(f"  {line}")


def check_start_models(experiment) -> None:
    """Refuse start models that are not there and that nothing says how to make, before anything is loaded."""
    for condition, folder in experiment.start_models.items():
        if experiment.base.source is None and not Path(folder).is_dir():
            raise InputError(
                f"model folder {folder} does not exist, the start model of {condition}; scripts/prepare_base.py makes "
                "it, or name its source in base.source"
            )


def check_stages(experiment, is_seeded: bool, skip_missing: bool) -> None:
    """Refuse a wrong key or value of any stage's config before the first one runs.

    is_seeded: the stages get a seed by flag. skip_missing: files that are not here are left out.
    """
    from domain_tokens.runs.config import load_config
    from domain_tokens.runs.config_schema import Gsm8kEvalConfig, ProbesEvalConfig, SftConfig

    kinds = dict.fromkeys(SFT_STAGES, SftConfig) | dict.fromkeys(EVALUATION_SCRIPTS, Gsm8kEvalConfig)
    for stage, kind in (kinds | {"eval_probes": ProbesEvalConfig}).items():
        if (given := getattr(experiment, stage)) is None or (skip_missing and not Path(given.config).is_file()):
            continue
        try:
            loaded = load_config(given.config, kind, given.overrides)
        except InputError as error:
            raise InputError(f"{stage}: {error}") from error
        if is_seeded and stage in SFT_STAGES and "seed" in loaded.overridden:
            raise InputError(f"{stage}: its overrides give a seed, which the experiment gives it; leave one out")
        if {"dataset", "data.dataset"} & loaded.overridden and _dataset(experiment, stage) is not None:
            raise InputError(f"{stage}: its overrides give a dataset, which its dataset: names; leave one out")


def plan(experiment, seed: int | None, seeds: list[int] | None) -> list[Step]:
    """Return the steps in order. Every command can be given by hand."""
    root, steps = Path(experiment.output_root), []
    roots = [seed_folder(root, each) for each in seeds or [None]]
    if experiment.base.source == "toy":
        sizes = experiment.toy_data.model_dump(exclude_none=True).items()
        rows = [word for name, count in sizes for word in (f"--{name.replace('_', '-')}", str(count))]
        steps.append(Step("toy data", ["scripts/make_toy_data.py", "--output-dir", str(root / "data"), *rows]))
    for each, own_root in zip(seeds or [seed], roots, strict=True):
        suffix = f", seed {each}" if seeds else ""
        models = _start_models(experiment, own_root)
        steps += [step._replace(name=step.name + suffix) for step in _plan_start_models(experiment, models, each)]
        for condition, model in models.items():
            own = _plan_condition(experiment, own_root, condition, model, each)
            steps += [Step(f"{name}, {condition}{suffix}", command) for name, command in own]
    steps.append(Step("comparison", _comparison(root, roots, list(experiment.start_models))))
    chosen = ["--seeds", *map(str, seeds)] if seeds else []
    return [*steps, Step("report", ["scripts/make_report.py", str(root), *chosen])]


def _start_models(experiment, root: Path) -> dict[str, str]:
    """Return the start model's folder of each condition, for the run in `root`."""
    models = experiment.start_models
    if experiment.base.source == "toy":  # each seed draws its own weights
        return {condition: str(root / Path(folder).name) for condition, folder in models.items()}
    return models


def _plan_start_models(experiment, models: dict[str, str], seed: int | None) -> Iterator[Step]:
    """Yield the making of each folder, for all the conditions that start from it."""
    base, seeded = experiment.base, [] if seed is None else ["--seed", str(seed)]
    if base.source is None:
        return
    source = ["--toy", *seeded] if base.source == "toy" else ["--source", base.source]
    layers = [] if base.layers is None else ["--layers", str(base.layers)]
    init = [] if base.init is None else ["--init", base.init]
    for folder in dict.fromkeys(models.values()):
        own = [condition for condition, model in models.items() if model == folder]
        chosen = [*source, *layers, *init, "--condition", *own]
        command = ["scripts/prepare_base.py", *chosen, "--output-dir", folder, "--resume"]
        yield Step(f"start model, {', '.join(own)}", command)


def _comparison(root: Path, roots: list[Path], conditions: list[str]) -> list[str]:
    folders = {condition: [str(eval_folder(each, condition)) for each in roots] for condition in conditions}
    if tuple(conditions) == PAIR:
        groups = [word for name, own in folders.items() for word in (f"--{name.replace('_', '-')}-dir", *own)]
    else:
        groups = ["--runs", *(f"{name}={','.join(own)}" for name, own in folders.items()), "--all-pairs"]
    return ["scripts/compare_runs.py", *groups, "--output-path", str(root / COMPARISON)]


def _plan_condition(experiment, root: Path, condition: str, model: str, seed: int | None) -> Iterator[Step]:
    """Yield one condition's stages and evaluations, in folders below `root`."""
    seeded = [] if seed is None else ["--seed", str(seed)]
    for stage in stages(experiment):
        folder = str(stage_folder(root, stage, condition))
        flags = ["--model-path", model, "--output-dir", folder, "--condition", condition, "--resume", *seeded]
        yield Step(stage, [f"sft/{stage}.py", *flags, *_stage_flags(experiment, stage)])
        model = folder
    for stage, script in EVALUATION_SCRIPTS.items():
        if getattr(experiment, stage) is None:
            continue
        # Greedy replies need no seed, and the probes must be the same for every seed of training.
        flags = ["--model-path", model, "--output-dir", str(eval_folder(root, condition)), "--resume"]
        yield Step(stage, [script, *flags, *_stage_flags(experiment, stage)])


def _stage_flags(experiment, name: str) -> list[str]:
    stage, dataset = getattr(experiment, name), _dataset(experiment, name)
    return ["--config", stage.config, *([] if dataset is None else ["--dataset-path", dataset]), *stage.overrides]


def _dataset(experiment, name: str) -> str | None:
    """Return the rows that a stage is given: its own or the toy world's; None for those of its config."""
    own = getattr(experiment, name).dataset
    if own is None and experiment.base.source == "toy" and name in TOY_ROWS:
        return str(Path(experiment.output_root) / "data" / TOY_ROWS[name])
    return own


def stages(experiment) -> list[str]:
    """Return the SFT stages that are run, in order."""
    return [stage for stage in SFT_STAGES if getattr(experiment, stage) is not None]


def written(experiment, seeds: list[int] | None) -> list[str]:
    """Return what a finished experiment wrote, in lines: the folders of one seed, and the files of all."""
    root, (first, *others) = Path(experiment.output_root), seeds or [None]
    own_root = seed_folder(root, first)
    lines = [
        str(folder)
        for condition in experiment.start_models
        for folder in (*(stage_folder(own_root, stage, condition) for stage in stages(experiment)),
                       eval_folder(own_root, condition))
    ]  # fmt: skip
    if others:
        lines.append(f"the same for other seeds: {seeds_in_words(others)}")
    return [*lines, *map(str, sorted(root.glob("comparison*"))), str(root / REPORT)]


def _run_script(command: list[str]) -> int:
    """Run a script in a process of its own, exactly as `python script args` does. Return its exit code.

    The processes are forked from one that has already imported torch and transformers, which takes a dozen seconds.
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
