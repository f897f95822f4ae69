"""How tables and the report write numbers, and what they call stages and evaluations."""

from collections.abc import Mapping
from typing import Any

from domain_tokens.runs.names import GSM8K_EVAL, PROBES_EVAL

STAGE_NAMES = {"sft_tulu": "stage 1: Tulu", "sft_gsm8k": "stage 2: GSM8K"}
EVALUATION_NAMES = {GSM8K_EVAL: "GSM8K", PROBES_EVAL: "probes"}


def percent(share: float) -> str:
    return f"{share:.1%}"


def points(share: float) -> str:
    """Return a signed difference of shares in percentage points."""
    return f"{100 * share:+z.1f}"


def accuracy(group: Mapping[str, Any]) -> str:
    """Return the accuracy of one group in a row of a comparison, with its standard deviation over seeds if any."""
    spread = group["std_over_seeds"]
    return percent(group["accuracy"]) + ("" if spread is None else f" ± {100 * spread:.1f}")


def interval(row: Mapping[str, Any]) -> str:
    return " to ".join(map(points, row["interval"]))


def p_value(row: Mapping[str, Any]) -> str:
    """Return the p-value of a row, with a star if it is corrected for several categories."""
    p = row.get("holm_p", row["mcnemar_p"])
    return ("<0.001" if p < 0.001 else f"{p:.3f}") + ("*" if "holm_p" in row else "")


def detectable(row: Mapping[str, Any]) -> str:
    difference = row["detectable_difference"]
    return "-" if difference is None else f"{100 * difference:.1f}"


def short_verdict(row: Mapping[str, Any]) -> str:
    """Return the verdict without what the run could have seen."""
    return row["verdict"].partition(";")[0]
