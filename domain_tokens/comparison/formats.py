"""How tables and the report write numbers, and what they call stages and evaluations."""

from collections.abc import Iterable, Mapping
from typing import Any

from domain_tokens.runs.names import GSM8K_EVAL, PROBES_EVAL

STAGE_NAMES = {"sft_tulu": "stage 1: Tulu", "sft_gsm8k": "stage 2: GSM8K"}
EVALUATION_NAMES = {GSM8K_EVAL: "GSM8K", PROBES_EVAL: "probes"}


def percent(share: float) -> str:
    return f"{share:.1%}"


def points(share: float) -> str:
    """Return a signed difference of shares in percentage points."""
    return f"{100 * share:+z.1f}"


def interval(row: Mapping[str, Any]) -> str:
    return " to ".join(map(points, row["interval"]))


def short_verdict(row: Mapping[str, Any]) -> str:
    """Return the verdict without what the run could have seen."""
    return row["verdict"].partition(";")[0]


def measure_table(rows: Iterable[Mapping[str, Any]], reference: str, other: str) -> list[dict[str, str]]:
    """Return the cells of a comparison's table by column, for each of its rows."""
    return [
        {
            "measure": row["name"],
            "questions": str(row["questions"]),
            reference: _accuracy(row[reference]),
            other: _accuracy(row[other]),
            "difference": points(row["difference"]),
            "95% interval": "[{}, {}]".format(*map(points, row["interval"])),
            "p": _p_value(row),
            "effect h": f"{row['cohens_h']:+z.2f}",
            "detectable": "-" if (least := row["detectable_difference"]) is None else f"{100 * least:.1f}",
            "verdict": short_verdict(row),
        }
        for row in rows
    ]


def _accuracy(group: Mapping[str, Any]) -> str:
    spread = group["std_over_seeds"]
    return percent(group["accuracy"]) + ("" if spread is None else f" ± {100 * spread:.1f}")


def _p_value(row: Mapping[str, Any]) -> str:
    """Return the p-value with a star if it is corrected for several categories, else with a space in its place."""
    p = row.get("holm_p", row["mcnemar_p"])
    return ("<0.001" if p < 0.001 else f"{p:.3f}") + ("*" if "holm_p" in row else " ")


def duration(seconds: float) -> str:
    """Return a time in its largest unit: `0.4 s`, `17 s`, `2.5 min`, `1.3 h`."""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 3600 else f"{seconds / 3600:.1f} h"
