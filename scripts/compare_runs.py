"""Compare the two conditions' evaluations question by question, and say whether the difference means anything.

Example:
  uv run python scripts/compare_runs.py --baseline-dir outputs/eval_baseline \\
      --mul-tokens-dir outputs/eval_mul_tokens --output-path outputs/comparison.json
"""

import argparse
from pathlib import Path

from domain_tokens.errors import InputError, one_line_usage_errors, run
from domain_tokens.tables import aligned

COLUMNS = ("measure", "questions", "baseline", "mul_tokens", "difference", "95% interval", "McNemar p", "verdict")


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--baseline-dir", required=True, help="evaluation folder of the baseline model")
    parser.add_argument("--mul-tokens-dir", required=True, help="evaluation folder of the mul_tokens model")
    parser.add_argument("--output-path", required=True, help="JSON file to write; the plots go beside it")
    parser.add_argument("--seed", type=int, default=42, help="draws the bootstrap's resamples (default: 42)")
    return one_line_usage_errors(parser).parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    from domain_tokens import comparison, results

    output = Path(args.output_path)
    if output.is_dir():
        raise InputError(f"output {output} is a folder, expected a file such as {output / 'comparison.json'}")
    baseline_dir, mul_tokens_dir = Path(args.baseline_dir), Path(args.mul_tokens_dir)
    pairs = comparison.read_pairs(baseline_dir, mul_tokens_dir)
    rows = comparison.compare(pairs, args.seed)
    usage = comparison.token_usage(pairs)

    output.parent.mkdir(parents=True, exist_ok=True)
    plots = [_plot_accuracies(rows, output.with_name(f"{output.stem}_accuracy.png"))]
    if results.PROBES_EVAL in pairs:
        maps = [comparison.table_map(side.predictions) for side in pairs[results.PROBES_EVAL]]
        plots.append(_plot_tables(maps, output.with_name(f"{output.stem}_mul_table.png")))
    results.write_json(
        output,
        {
            "eval_version": results.EVAL_VERSION,
            "seed": args.seed,
            "baseline_dir": results.shown_path(baseline_dir),
            "mul_tokens_dir": results.shown_path(mul_tokens_dir),
            "rows": rows,
            "token_usage": usage,
            "plots": [plot.name for plot in plots],
            "environment": results.environment("cpu"),
        },
    )
    print(_table(rows))
    print()
    print(_headline(rows[0]))
    print()
    print(_usage_table(usage))
    print()
    for path in (output, *plots):
        print(f"wrote {path}")


def _table(rows: list[dict]) -> str:
    cells = [COLUMNS]
    for row in rows:
        low, high = row["interval"]
        cells.append(
            (
                row["name"], str(row["questions"]), f"{row['baseline']['accuracy']:.1%}",
                f"{row['mul_tokens']['accuracy']:.1%}", f"{100 * row['difference']:+.1f}",
                f"[{100 * low:+.1f}, {100 * high:+.1f}]", f"{row['mcnemar_p']:.3f}", row["verdict"],
            )
        )  # fmt: skip
    return (
        aligned(cells, left=(0, 7))
        + "\n\nDifferences in percentage points, mul_tokens minus baseline; paired by question."
    )


def _headline(row: dict) -> str:
    low, high = row["interval"]
    accuracies = f"mul_tokens {row['mul_tokens']['accuracy']:.1%}, baseline {row['baseline']['accuracy']:.1%}"
    difference = f"difference {100 * row['difference']:+.1f} points, 95% interval {100 * low:+.1f} to {100 * high:+.1f}"
    return f"{row['name']}: {row['verdict']} ({accuracies}; {difference})"


def _usage_table(usage: dict) -> str:
    cells = [("replies", "condition", "tokens each", "facts each", "facts in all", "ended by end-of-text")]
    for name, conditions in usage.items():
        for condition, figures in conditions.items():
            tokens, facts = f"{figures['avg_response_tokens']:.1f}", f"{figures['mul_tokens_per_response']:.2f}"
            in_all, finished = str(figures["mul_token_count"]), f"{figures['finished_rate']:.1%}"
            cells.append((name, condition, tokens, facts, in_all, finished))
    return aligned(cells, left=(0, 1))


def _plot_accuracies(rows: list[dict], path: Path) -> Path:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 1.2 + 0.6 * len(rows)), layout="constrained")
    axes = figure.subplots()
    for offset, condition, color in ((-0.14, "baseline", "#0072b2"), (0.14, "mul_tokens", "#d55e00")):
        shares = [100 * row[condition]["accuracy"] for row in rows]
        reach = [
            [max(0.0, share - 100 * row[condition]["interval"][0]) for row, share in zip(rows, shares, strict=True)],
            [max(0.0, 100 * row[condition]["interval"][1] - share) for row, share in zip(rows, shares, strict=True)],
        ]
        heights = [i + offset for i in range(len(rows))]
        axes.errorbar(shares, heights, xerr=reach, fmt="o", color=color, capsize=3, label=condition)
    axes.set_yticks(range(len(rows)), [f"{row['name']}\n({row['questions']} questions)" for row in rows])
    axes.invert_yaxis()
    axes.set_xlim(-2, 102)
    axes.set_xlabel("right answers in %, with 95% intervals")
    axes.grid(axis="x", alpha=0.3)
    axes.legend(loc="best")
    return _save(figure, path)


def _plot_tables(maps: list, path: Path) -> Path:
    from matplotlib.colors import ListedColormap
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5.2), layout="constrained")
    for axes, condition, right in zip(figure.subplots(1, 2), ("baseline", "mul_tokens"), maps, strict=True):
        axes.imshow(right, cmap=ListedColormap(["#d55e00", "#56b4e9"]), vmin=0, vmax=1)
        axes.set_title(f"{condition}: {int(right.sum())} of 81 right", pad=8)
        axes.set_xticks(range(9), range(1, 10))
        axes.set_yticks(range(9), range(1, 10))
        axes.set_xlabel("b")
        axes.set_ylabel("a", rotation=0, labelpad=8)
        axes.set_xticks([i + 0.5 for i in range(8)], minor=True)
        axes.set_yticks([i + 0.5 for i in range(8)], minor=True)
        axes.grid(which="minor", color="white")
        axes.tick_params(which="minor", length=0)
        for a in range(9):
            for b in range(9):
                mark = str((a + 1) * (b + 1)) if right[a, b] else "×"
                axes.text(b, a, mark, ha="center", va="center", fontsize=8)
    figure.suptitle("“What is a times b?”: the product where it was answered right, × where not")
    return _save(figure, path)


def _save(figure, path: Path) -> Path:
    temporary = path.with_name(f".{path.name}.writing")
    figure.savefig(temporary, dpi=150, format="png")
    temporary.replace(path)
    return path


if __name__ == "__main__":
    run(main)
