"""Compare the two conditions' evaluations question by question, and say whether the difference means anything.

Several folders of each condition are several seeds, in the same order on both sides.

Example:
  uv run python scripts/compare_runs.py --baseline-dir outputs/eval_baseline \\
      --mul-tokens-dir outputs/eval_mul_tokens --output-path outputs/comparison.json
"""

import argparse
from pathlib import Path

from domain_tokens.comparison.formats import measure_table, percent
from domain_tokens.conditions import CONDITIONS
from domain_tokens.runs.command import CommandParser, run
from domain_tokens.runs.terminal import aligned, say


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = CommandParser(__doc__)
    for condition in CONDITIONS:
        flag, meaning = (
            condition.replace("_", "-"),
            f"evaluation folder of the {condition} model; of each seed, in order",
        )
        parser.add_path(f"--{flag}-dir", nargs="+", required=True, metavar="DIR", help=meaning)
    parser.add_output_path("JSON file to write; the plots go beside it", required=True)
    parser.add_argument("--seed", type=int, default=42, help="draws the bootstrap's resamples (default: 42)")
    return parser.parse(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    from domain_tokens.comparison import figures
    from domain_tokens.comparison.compare import compare_evaluations, headline, mul_tables, token_usage
    from domain_tokens.comparison.reading import data_label, read_runs
    from domain_tokens.runs.files import json_text, shown_path, write_files
    from domain_tokens.runs.folders import output_file
    from domain_tokens.runs.names import PROBES_EVAL
    from domain_tokens.runs.provenance import environment

    output = output_file(args.output_path, "token_usage", args.overwrite)
    folders = {condition: [Path(folder) for folder in getattr(args, f"{condition}_dir")] for condition in CONDITIONS}
    runs = read_runs(folders)
    names = ["accuracy", "mul_table"] if PROBES_EVAL in runs else ["accuracy"]
    places = {name: figures.plot_file(output, name) for name in names}
    rows, usage, data = compare_evaluations(runs, args.seed), token_usage(runs), data_label(runs)
    first_group = next(iter(next(iter(runs.values())).values()))

    plots = {places["accuracy"]: figures.accuracy_figure(rows, list(folders), data)}
    if "mul_table" in places:
        plots[places["mul_table"]] = figures.mul_table_figure(mul_tables(runs[PROBES_EVAL]), data)
    comparison = {
        "eval_version": first_group[0].results.get("eval_version"),  # the same in all that is compared
        "seed": args.seed,
        "seeds": [evaluation.seed for evaluation in first_group],
        **{f"{condition}_dirs": [shown_path(folder) for folder in group] for condition, group in folders.items()},
        "rows": rows,
        "token_usage": usage,
        "plots": [plot.name for plot in plots],
        "environment": environment("cpu"),
    }
    images = {path: figures.figure_as_png(figure) for path, figure in plots.items()}
    write_files(images | {output: json_text(comparison).encode()})
    say(_comparison_table(rows, *folders, data))
    say(f"\n{headline(rows[0], *folders, data)}\n\n{_usage_table(usage, data)}\n")
    for path in (output, *plots):
        say(f"wrote {path}")


def _comparison_table(rows: list[dict], reference: str, other: str, data: str) -> str:
    columns = [name for name in measure_table(rows, reference, other)[0] if name != "effect h"]
    cells = [tuple(row[name] for name in columns) for row in measure_table(rows, reference, other)]
    notes = (
        f"Differences in percentage points, {other} minus {reference}, paired by question; p: McNemar's exact test\n"
        "(*: Holm's correction for three categories); detectable: what these questions show in 4 of 5 runs."
    )
    if (seeds := len(rows[0][reference]["by_seed"])) > 1:
        notes += f"\nAccuracies are means ± standard deviations over {seeds} seeds; the interval covers seeds too."
    return f"{aligned([(columns[0] + data, *columns[1:]), *cells], left=(0, 8))}\n\n{notes}"


def _usage_table(usage: dict, data: str) -> str:
    cells = [(f"replies{data}", "condition", "tokens each", "facts each", "facts in all", "ended by end-of-text")]
    for name, groups in usage.items():
        for label, figures in groups.items():
            tokens, facts = f"{figures['avg_response_tokens']:.1f}", f"{figures['mul_tokens_per_response']:.2f}"
            in_all, finished = str(figures["mul_token_count"]), percent(figures["finished_rate"])
            cells.append((name, label, tokens, facts, in_all, finished))
    return aligned(cells, left=(0, 1))


if __name__ == "__main__":
    run(main)
