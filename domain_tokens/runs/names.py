"""What every run writes down: one schema for training, one for evaluation, and where the numbers come from.

Files appear whole or not at all: each is written under a temporary name and renamed, the results file last, so a
folder with its results file is complete.
"""

import re
from pathlib import Path

RECORD_NAME = "domain_tokens.json"
TULU_RESULTS, GSM8K_SFT_RESULTS = "tulu_sft_results.json", "sft_results.json"
RESOLVED_CONFIG = "resolved_config.yaml"
UNFINISHED = "unfinished_run.json"  # the settings of a run that has not written its results yet
MODEL_FILES = ("config.json", "model.safetensors", TULU_RESULTS, GSM8K_SFT_RESULTS, RECORD_NAME)
GSM8K_EVAL, PROBES_EVAL = "gsm8k", "arithmetic"  # {name}_results.json and {name}_predictions.jsonl

# A dataset or model on the Hub, with its owner.
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def unfinished_evaluation(name: str) -> str:
    """As UNFINISHED; two evaluations may share a folder."""
    return f"{name}_unfinished.json"


COMPARISON, REPORT = "comparison.json", "report.html"
SFT_STAGES = {"sft_tulu": TULU_RESULTS, "sft_gsm8k": GSM8K_SFT_RESULTS}  # and the results file of each
EVALUATIONS = {name: f"{name}_results.json" for name in (GSM8K_EVAL, PROBES_EVAL)}


def seed_folder(root: Path, seed: int | None) -> Path:
    """Where one seed's folders lie; without a seed, the experiment's own."""
    return root if seed is None else root / f"seed_{seed}"


def stage_folder(root: Path, stage: str, condition: str) -> Path:
    return root / f"{stage}_{condition}"


def eval_folder(root: Path, condition: str) -> Path:
    return root / f"eval_{condition}"


def seeds_below(root: Path) -> list[int]:
    """The seeds that have a folder below `root`."""
    return sorted(int(folder.name[5:]) for folder in root.glob("seed_*") if re.fullmatch(r"seed_[0-9]+", folder.name))


def is_experiment(root: Path) -> bool:
    """Whether folders of stages or evaluations lie in `root` itself."""
    return any(folder.is_dir() for kind in ("sft_*", "eval_*") for folder in root.glob(kind))
