"""How tables and the report write numbers, and what they call stages and evaluations."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any

from domain_tokens.runs.names import GSM8K_EVAL, PROBES_EVAL, STEPS_EVAL

STAGE_NAMES = {"sft_tulu": "stage 1: Tulu", "sft_gsm8k": "stage 2: GSM8K"}
EVALUATION_NAMES = {GSM8K_EVAL: "GSM8K", PROBES_EVAL: "probes", STEPS_EVAL: "steps"}
BITS = "bits per byte"
VALIDATION_BITS = {"number_bits": "numbers", "word_bits": "words"}  # curves of a stage, and what they are of
LOSS_NOTE = "Losses per token of different conditions cannot be compared: their tokens differ."
STEPS_NOTE = "For steps and bits, whole questions are resampled; their p is that of a paired permutation test."
BITS_NOTE = (
    "Bits are those of the shared text, which all conditions write alike; lower is better. Bits of whole answers "
    "cannot be compared: a token that replaces a fact forgets operand order, spacing and whether the result was "
    "written. And a fact in the prefix tells the result just as 6*9=54 does."
)


_P_VALUES = ("mcnemar_p", "permutation_p", "interval_p")
_OF_A_CONTRAST = ("difference", "95% interval", "p", "detectable", "verdict")


def percent(share: float) -> str:
    return f"{share:.1%}"


def points(share: float) -> str:
    """Return a signed difference of shares in percentage points."""
    return f"{100 * share:+z.1f}"


def is_bits(row: Mapping[str, Any]) -> bool:
    """Return whether a measure is in bits per byte, of which fewer are better, and not a share."""
    return row.get("unit") == BITS


def amount(row: Mapping[str, Any], size: float) -> str:
    """Return the size of a difference with its unit."""
    return f"{size:.4f} {BITS}" if is_bits(row) else f"{100 * size:.1f} points"


def _difference(row: Mapping[str, Any], signed: float) -> str:
    return f"{signed:+z.4f}" if is_bits(row) else points(signed)


def interval(row: Mapping[str, Any]) -> str:
    return " to ".join(_difference(row, end) for end in row["interval"])


def short_verdict(row: Mapping[str, Any]) -> str:
    """Return the verdict without what the run could have seen."""
    return row["verdict"].partition(";")[0]


def measure_table(rows: Iterable[Mapping[str, Any]], reference: str, other: str) -> list[dict[str, str]]:
    """Return the cells of a comparison's table by column, for each of its rows."""
    return [
        {
            "measure": row["name"],
            "questions": str(row["questions"]),
            reference: reached(row, reference),
            other: reached(row, other),
            "difference": _difference(row, row["difference"]),
            "95% interval": f"[{interval(row).replace(' to ', ', ')}]",
            "p": _shown_p(row),
            "effect h": "-" if (size := row["cohens_h"]) is None else f"{size:+z.2f}",
            "detectable": "-" if (least := row["detectable_difference"]) is None else amount(row, least).split()[0],
            "verdict": short_verdict(row),
        }
        for row in rows
    ]


def contrast_rows(contrasts: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return of each measure its `title`, what all groups `reached`, and as `rows` each contrast's cells by column."""
    tables = []
    for rows in zip(*(contrast["rows"] for contrast in contrasts), strict=True):
        groups: dict[str, str] = {}
        cells = []
        for contrast, row in zip(contrasts, rows, strict=True):
            pair = contrast["reference"], contrast["other"]
            groups |= {label: reached(row, label) for label in pair}
            (table,) = measure_table([row], *pair)
            cells.append({"contrast": contrast_name(contrast)} | {name: table[name] for name in _OF_A_CONTRAST})
        values = ", ".join(f"{label} {value}" for label, value in groups.items())
        title = f"{rows[0]['name']} ({rows[0]['questions']} questions)"
        tables.append({"title": title, "reached": values, "rows": cells})
    return tables


def contrast_name(contrast: Mapping[str, Any]) -> str:
    return f"{contrast['other']} − {contrast['reference']}"


def differences_in_words(differs_in: Sequence[str], seeds: int) -> str:
    """Return a clause for tables and reports, with a caution where a difference has several possible causes.

    seeds: of each group. With several seeds, the interval already covers that seeds differ.
    """
    if not differs_in:
        return "differs in nothing that the results say"
    if [*differs_in] == ["seeds"] and seeds == 1:
        return "differs in seeds, of one each: what differs here is the luck of two seeds"
    causes = [what for what in differs_in if what != "seeds" or seeds == 1]
    if len(causes) < 2:
        return f"differs in {' and '.join(differs_in)}"
    return f"differs in {_listed(differs_in)}: the difference cannot be put down to one of them"


def _listed(words: Sequence[str]) -> str:
    *first, last = words
    return f"{', '.join(first)} and {last}" if first else last


def seeds_in_words(seeds: Sequence[int | None]) -> str:
    """Return seeds in their order, more than three in a row as a range: 7, 24 to 115."""
    words = []
    for _, places in groupby(range(len(seeds)), lambda i: None if seeds[i] is None else seeds[i] - i):
        run = ["–" if seeds[i] is None else str(seeds[i]) for i in places]
        words += run if len(run) <= 3 or run[0] == "–" else [f"{run[0]} to {run[-1]}"]
    return ", ".join(words)


def group_rows(groups: Mapping[str, Any]) -> list[dict[str, str]]:
    """Return the cells of a table by column that says what each group is. groups: see `groups.describe_groups`."""
    said = {True: "yes", False: "no", None: "–"}
    return [
        {
            "group": label,
            "condition": group.condition,
            "facts injected": said[group.injected],
            "init": group.init or "–",
            "seeds": seeds_in_words(group.seeds),
        }
        for label, group in groups.items()
    ]


def reached(row: Mapping[str, Any], label: str) -> str:
    """Return what a group reached, and its standard deviation over seeds."""
    group, spread = row[label], row[label]["std_over_seeds"]
    if is_bits(row):
        return f"{group['bits_per_byte']:.4f}" + ("" if spread is None else f" ± {spread:.4f}")
    return percent(group["accuracy"]) + ("" if spread is None else f" ± {100 * spread:.1f}")


def p_value(row: Mapping[str, Any]) -> float:
    """Return what decides a claim beside the interval: Holm's p where a row has it, else the larger of its own."""
    return row["holm_p"] if "holm_p" in row else max(row[key] for key in _P_VALUES if key in row)


def _shown_p(row: Mapping[str, Any]) -> str:
    """Return the p-value with a star if it is corrected for being several, else with a space in its place."""
    p = p_value(row)
    return ("<0.001" if p < 0.001 else f"{p:.3f}") + ("*" if "holm_p" in row else " ")


def duration(seconds: float) -> str:
    """Return a time in its largest unit: `0.4 s`, `17 s`, `2.5 min`, `1.3 h`."""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 3600 else f"{seconds / 3600:.1f} h"
