"""Names of the files and folders that commands write, and how names look on the Hub."""

import re
from collections.abc import Iterable
from pathlib import Path

# A model folder
RECORD_NAME = "domain_tokens.json"
TULU_RESULTS, GSM8K_SFT_RESULTS = "tulu_sft_results.json", "sft_results.json"
SFT_STAGES = {"sft_tulu": TULU_RESULTS, "sft_gsm8k": GSM8K_SFT_RESULTS}  # each with its results file
RESOLVED_CONFIG = "resolved_config.yaml"
UNFINISHED = "unfinished_run.json"  # the settings of a run that has not written its results yet
MODEL_FILES = ("config.json", "model.safetensors", *SFT_STAGES.values(), RECORD_NAME)

# How the rows of new tokens begin in a start model; the first unless told otherwise
INITS = ("pieces", "mean", "random")

# An evaluation folder; several evaluations may share it
EVALUATIONS = GSM8K_EVAL, PROBES_EVAL, STEPS_EVAL = "gsm8k", "arithmetic", "steps"

# An experiment's own folder
COMPARISON, REPORT = "comparison.json", "report.html"

# A dataset or model on the Hub, with its owner.
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def results_file(evaluation: str) -> str:
    return f"{evaluation}_results.json"


def predictions_file(evaluation: str) -> str:
    return f"{evaluation}_predictions.jsonl"


def unfinished_evaluation(evaluation: str) -> str:
    """Return the name of the file with the settings of an evaluation that has not written its results yet."""
    return f"{evaluation}_unfinished.json"


def unfinished_answers(evaluation: str, rank: int | str) -> str:
    """Return the name of the file with the answers that one process kept; rank "*": a pattern for all of them."""
    return f"{evaluation}_unfinished-{rank}.jsonl"


def seed_folder(root: Path, seed: int | None) -> Path:
    """Return where one seed's folders lie: without a seed, in the experiment's own folder."""
    return root if seed is None else root / f"seed_{seed}"


def stage_folder(root: Path, stage: str, condition: str) -> Path:
    return root / f"{stage}_{condition}"


def eval_folder(root: Path, condition: str) -> Path:
    return root / f"eval_{condition}"


def conditions_below(root: Path, known: Iterable[str]) -> list[str]:
    """Return which of the known conditions have folders in `root` or for one of its seeds."""
    roots = [root, *(seed_folder(root, seed) for seed in seeds_below(root))]
    return [
        condition
        for condition in known
        if any((each / f"{kind}_{condition}").is_dir() for each in roots for kind in (*SFT_STAGES, "eval"))
    ]


def seeds_below(root: Path) -> list[int]:
    """Return the seeds that have a folder in `root`."""
    folders = [
        each for each in root.glob("seed_*") if re.fullmatch(r"seed_(0|[1-9][0-9]*)", each.name) and each.is_dir()
    ]
    return sorted(int(folder.name[5:]) for folder in folders)


def is_experiment(root: Path) -> bool:
    """Return whether folders of stages or evaluations lie in `root` itself."""
    return any(folder.is_dir() for kind in ("sft_*", "eval_*") for folder in root.glob(kind))
