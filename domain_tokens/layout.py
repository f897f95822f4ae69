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


def seed_roots(root: Path) -> list[Path]:
    """The folders that hold stages: `seed_*` in the order of their numbers, or the root itself where there is none."""
    seeds = [folder for folder in root.glob("seed_*") if re.fullmatch(r"seed_\d+", folder.name)]
    return sorted(seeds, key=lambda folder: int(folder.name[5:])) or [root]
