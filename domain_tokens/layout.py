"""What the folders of an experiment are called: the one place that knows.

An experiment lies below its output root: `sft_tulu_baseline`, `eval_mul_tokens` and so on, or, of several seeds, the
same in `seed_0`, `seed_1` …, with the comparison and the report beside them.
"""

import re
from pathlib import Path

from domain_tokens.results import GSM8K_EVAL, GSM8K_SFT_RESULTS, PROBES_EVAL, TULU_RESULTS

COMPARISON, REPORT = "comparison.json", "report.html"
SFT_STAGES = {"sft_tulu": TULU_RESULTS, "sft_gsm8k": GSM8K_SFT_RESULTS}  # and the results file of each
EVALUATIONS = {name: f"{name}_results.json" for name in (GSM8K_EVAL, PROBES_EVAL)}


def seed_root(root: Path, seed: int | None) -> Path:
    """Where one seed's folders lie; without a seed, the experiment's own."""
    return root if seed is None else root / f"seed_{seed}"


def stage_folder(root: Path, stage: str, condition: str) -> Path:
    return root / f"{stage}_{condition}"


def eval_folder(root: Path, condition: str) -> Path:
    return root / f"eval_{condition}"


def seeds(root: Path) -> list[int]:
    """The seeds that have a folder below `root`."""
    return sorted(int(folder.name[5:]) for folder in root.glob("seed_*") if re.fullmatch(r"seed_[0-9]+", folder.name))


def is_experiment(root: Path) -> bool:
    """Whether folders of stages or evaluations lie in `root` itself."""
    return any(folder.is_dir() for kind in ("sft_*", "eval_*") for folder in root.glob(kind))
