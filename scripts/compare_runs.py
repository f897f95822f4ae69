"""Compare the two conditions' evaluations question by question, and say whether the difference means anything.

Several folders of each condition are several seeds, in the same order on both sides.

Example:
  uv run python scripts/compare_runs.py --baseline-dir outputs/eval_baseline \\
      --mul-tokens-dir outputs/eval_mul_tokens --output-path outputs/comparison.json
"""

import argparse
from pathlib import Path

from domain_tokens.runs.command import CommandParser, run
from domain_tokens.runs.terminal import aligned, say

COLUMNS = (
    "measure", "questions", "baseline", "mul_tokens", "difference", "95% interval", "p", "detectable", "verdict",
)  # fmt: skip


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = CommandParser(__doc__)
    for condition in ("baseline", "mul-tokens"):
        meaning = f"evaluation folder of the {condition.replace('-', '_')} model; of each seed's, in order"
        parser.add_path(f"--{condition}-dir", nargs="+", required=True, metavar="DIR", help=meaning)
    parser.add_output_path("JSON file to write; the plots go beside it", required=True)
    parser.add_argument("--seed", type=int, default=42, help="draws the bootstrap's resamples (default: 42)")
    return parser.parse(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    from domain_tokens.comparison.compare import compare_evaluations, headline, mul_tables_by_condition, token_usage
    from domain_tokens.comparison.figures import accuracy_figure, mul_table_figure, save_figure
    from domain_tokens.comparison.reading import read_runs
    from domain_tokens.runs.files import shown_path, write_json
    from domain_tokens.runs.folders import output_file
    from domain_tokens.runs.names import PROBES_EVAL
    from domain_tokens.runs.provenance import environment

    output = output_file(args.output_path, "token_usage", args.overwrite)
    folders = {"baseline": args.baseline_dir, "mul_tokens": args.mul_tokens_dir}
    runs = read_runs(*([Path(folder) for folder in side] for side in folders.values()))
    rows = compare_evaluations(runs, args.seed)
    usage = token_usage(runs)
    first = next(iter(runs.values())).baseline[0]

    plots = [save_figure(accuracy_figure(rows), output.with_name(f"{output.stem}_accuracy.png"))]
    if PROBES_EVAL in runs:
        tables = mul_tables_by_condition(runs[PROBES_EVAL])
        plots.append(save_figure(mul_table_figure(tables), output.with_name(f"{output.stem}_mul_table.png")))
    write_json(
        output,
        {
            "eval_version": first.results.get("eval_version"),  # of what is compared, all the same
            "seed": args.seed,
            "seeds": [run.seed for run in next(iter(runs.values())).baseline],
            "baseline_dirs": [shown_path(folder) for folder in args.baseline_dir],
            "mul_tokens_dirs": [shown_path(folder) for folder in args.mul_tokens_dir],
            "rows": rows,
            "token_usage": usage,
            "plots": [plot.name for plot in plots],
            "environment": environment("cpu"),
        },
    )
    say(_table(rows))
    say()
    say(headline(rows[0]))
    say()
    say(_usage_table(usage))
    say()
    for path in (output, *plots):
        say(f"wrote {path}")


def _table(rows: list[dict]) -> str:
    cells = [COLUMNS]
    for row in rows:
        low, high = row["interval"]
        p = _p(row["holm_p"]) + "*" if "holm_p" in row else _p(row["mcnemar_p"]) + " "
        detectable = row["detectable_difference"]
        cells.append(
            (
                row["name"], str(row["questions"]), _accuracy(row["baseline"]), _accuracy(row["mul_tokens"]),
                f"{100 * row['difference']:+.1f}", f"[{100 * low:+.1f}, {100 * high:+.1f}]", p,
                "-" if detectable is None else f"{100 * detectable:.1f}", row["verdict"].partition(";")[0],
            )
        )  # fmt: skip
    notes = [
        "Differences in percentage points, mul_tokens minus baseline, paired by question; p: McNemar's exact test",
        "(*: Holm's correction for three categories); detectable: what these questions show in 4 of 5 runs.",
    ]
    if seeds := len(rows[0]["baseline"]["by_seed"]) - 1:
        notes.append(
            f"Accuracies are means ± standard deviations over {seeds + 1} seeds; the interval covers seeds too."
        )
    return "\n".join([aligned(cells, left=(0, 8)), "", *notes])


def _p(p: float) -> str:
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def _accuracy(side: dict) -> str:
    spread = "" if side["std_over_seeds"] is None else f" ± {100 * side['std_over_seeds']:.1f}"
    return f"{side['accuracy']:.1%}{spread}"


def _usage_table(usage: dict) -> str:
    cells = [("replies", "condition", "tokens each", "facts each", "facts in all", "ended by end-of-text")]
    for name, conditions in usage.items():
        for condition, figures in conditions.items():
            tokens, facts = f"{figures['avg_response_tokens']:.1f}", f"{figures['mul_tokens_per_response']:.2f}"
            in_all, finished = str(figures["mul_token_count"]), f"{figures['finished_rate']:.1%}"
            cells.append((name, condition, tokens, facts, in_all, finished))
    return aligned(cells, left=(0, 1))


if __name__ == "__main__":
    run(main)
