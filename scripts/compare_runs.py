"""Compare evaluations question by question, and say whether the difference means anything.

Two conditions, each with one folder for every seed, or any groups by labels of your own. Seeds stand in the same order
in all groups.

Example:
  uv run python scripts/compare_runs.py --baseline-dir outputs/eval_baseline \\
      --mul-tokens-dir outputs/eval_mul_tokens --output-path outputs/comparison.json
  uv run python scripts/compare_runs.py --runs "with facts=outputs/a,outputs/b" "without=outputs/c,outputs/d" \\
      --reference without --output-path outputs/ablation.json
"""

import argparse
import itertools
import re
import textwrap
from pathlib import Path

from domain_tokens.comparison.formats import (
    BITS_NOTE,
    STEPS_NOTE,
    contrast_name,
    contrast_rows,
    differences_in_words,
    group_rows,
    is_bits,
    measure_table,
    percent,
)
from domain_tokens.runs.command_line import CommandParser, run
from domain_tokens.runs.errors import InputError, nearest
from domain_tokens.runs.files import user_path
from domain_tokens.runs.terminal import aligned, say

WIDTH = 100  # of the lines between tables
# The flags of the two conditions, which runs of the whole experiment are compared with.
CONDITION_FLAGS = {"baseline": "--baseline-dir", "mul_tokens": "--mul-tokens-dir"}


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = CommandParser(__doc__)
    for condition, flag in CONDITION_FLAGS.items():
        meaning = f"evaluation folder of the {condition} model; of each seed, in order"
        parser.add_path(flag, nargs="+", metavar="DIR", help=meaning)
    meaning = "two groups or more: a label, and the evaluation folder of each seed"
    parser.add_argument("--runs", nargs="+", metavar="LABEL=DIR[,DIR…]", help=meaning)
    parser.add_argument("--reference", metavar="LABEL", help="compare every other group with it (default: the first)")
    parser.add_argument("--all-pairs", action="store_true", help="compare every group with every other")
    parser.add_output_path("JSON file to write; the plots go beside it", required=True)
    parser.add_argument("--seed", type=int, default=42, help="draws the bootstrap's resamples (default: 42)")
    args = parser.parse(argv)
    given = {flag: getattr(args, f"{condition}_dir") for condition, flag in CONDITION_FLAGS.items()}
    if args.runs and any(given.values()):
        parser.error(f"--runs and {' or '.join(given)} contradict each other")
    if args.runs and args.reference and args.all_pairs:
        parser.error("--reference and --all-pairs contradict each other")
    if not args.runs and (args.reference or args.all_pairs):
        parser.error("--reference and --all-pairs need --runs")
    if not args.runs and (missing := [flag for flag, folders in given.items() if not folders]):
        parser.error(f"the following arguments are required: {', '.join(missing)} (or --runs LABEL=DIR …)")
    return args


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    from domain_tokens.comparison import plots
    from domain_tokens.comparison.compare import compare_groups, headline, measures, mul_tables, token_usage
    from domain_tokens.comparison.groups import describe_groups
    from domain_tokens.comparison.reading import data_label, of_one_model, read_runs
    from domain_tokens.runs.files import json_text, shown_path, write_files
    from domain_tokens.runs.folders import output_file
    from domain_tokens.runs.names import PROBES_EVAL, STEPS_EVAL
    from domain_tokens.runs.provenance import environment

    folders = _groups(args.runs) if args.runs else _conditions(args)
    pairs = _pairs(list(folders), args.reference, args.all_pairs)
    output = output_file(args.output_path, "token_usage", args.overwrite)
    runs = read_runs(folders, labels_are_conditions=not args.runs)
    names = ["accuracy"] + ["mul_table"] * (PROBES_EVAL in runs) + ["bits"] * (STEPS_EVAL in runs)
    places = {name: plots.plot_file(output, name, args.overwrite) for name in names}
    described, usage, data = describe_groups(runs), token_usage(runs), data_label(runs)
    contrasts = compare_groups(runs, pairs, args.seed)
    of_first = next(iter(runs.values()))
    first_group = next(iter(of_first.values()))

    drawn = {
        "accuracy": lambda: plots.accuracy_figure(measures(contrasts), list(folders), data),
        "mul_table": lambda: plots.mul_table_figure(mul_tables(runs[PROBES_EVAL]), data),
        "bits": lambda: plots.bits_figure(measures(contrasts), list(folders), data),
    }
    drawings = {place: drawn[name]() for name, place in places.items()}
    shown = {label: [shown_path(each.folder) for each in group] for label, group in of_first.items()}
    compared = (
        {
            "groups": {label: vars(group) | {"dirs": shown[label]} for label, group in described.items()},
            "reference": None if args.all_pairs else pairs[0][0],
            "contrasts": contrasts,
        }
        if args.runs
        else {
            "seeds": [evaluation.seed for evaluation in first_group],
            **{f"{condition}_dirs": group for condition, group in shown.items()},
            "rows": contrasts[0]["rows"],
        }
    )
    comparison = {
        "eval_version": first_group[0].results.get("eval_version"),  # the same in all that is compared
        "seed": args.seed,
        **compared,
        "token_usage": usage,
        "plots": [place.name for place in drawings],
        "environment": environment("cpu"),
    }
    images = {path: plots.figure_as_png(figure) for path, figure in drawings.items()}
    write_files(images | {output: json_text(comparison).encode()})
    if args.runs:
        say(f"{_group_table(described)}\n\n{_contrast_table(contrasts, data)}")
    else:
        say(_comparison_table(contrasts[0]["rows"], *folders, data))
        if of_one_model(of_first):
            say(f"\n{' and '.join(folders)} are of one and the same model, by its weights.")
        for label in (label for label, group in described.items() if group.is_ablation()):
            say(f"\nAn ablation: training texts of {label} were left as they are (--no-inject-mul-tokens).")
        if {"seeds", "init", "source", "stages"} & {*contrasts[0]["differs_in"]}:
            say("\n" + "\n".join(_differences(contrasts, len(first_group))))
        say(f"\n{headline(contrasts[0]['rows'][0], *folders, data)}")
    say(f"\n{_usage_table(usage, data)}\n")
    for path in (output, *drawings):
        say(f"wrote {path}")


def _conditions(args: argparse.Namespace) -> dict[str, list[Path]]:
    return {condition: [Path(folder) for folder in getattr(args, f"{condition}_dir")] for condition in CONDITION_FLAGS}


def _groups(words: list[str]) -> dict[str, list[Path]]:
    """Return the folders of --runs by label."""
    from domain_tokens.comparison.groups import check_label

    groups: dict[str, list[Path]] = {}
    for word in words:
        label, _, listed = word.partition("=")
        folders = [Path(user_path(folder)) for folder in listed.split(",") if folder]
        if not folders:
            raise InputError(f"--runs {word}: no folder; give LABEL=DIR, or LABEL=DIR,DIR with a folder for each seed")
        check_label(label)
        if label in groups:
            raise InputError(f"--runs has the label {label} twice; give each group a label of its own")
        for folder in folders:
            if not folder.is_dir():
                raise InputError(f"--runs {label}: {folder} is no folder; give one that an evaluation was written to")
        groups[label] = folders
    if len(groups) < 2:
        raise InputError(f"--runs has one group, {words[0]}; give two or more")
    return groups


def _pairs(labels: list[str], reference: str | None, all_pairs: bool) -> list[tuple[str, str]]:
    """Return the labels of each contrast, the reference first."""
    if all_pairs:
        return list(itertools.combinations(labels, 2))
    reference = reference or labels[0]
    if reference not in labels:
        guess = nearest(reference, labels)
        raise InputError(f"--reference {reference} is none of the labels {', '.join(labels)}{guess}; give one of them")
    return [(reference, label) for label in labels if label != reference]


def _group_table(groups: dict) -> str:
    rows = group_rows(groups)
    return aligned([tuple(rows[0]), *(tuple(row.values()) for row in rows)], left=range(5))


def _contrast_table(contrasts: list[dict], data: str) -> str:
    """Return one table for all measures: a heading for each, and below it a line for each contrast."""
    blocks = contrast_rows(contrasts)
    columns = tuple(blocks[0]["rows"][0])
    cells = [(columns[0] + data, *columns[1:]), *(tuple(row.values()) for block in blocks for row in block["rows"])]
    head, rule, *lines = aligned(cells, left=(0, 5)).split("\n")
    table = [head, rule]
    for block in blocks:
        whole = re.sub(r"(?<!,) ", "\xa0", block["reached"])  # a group's label and value stay on one line
        heading, count = f"{block['title']}: {whole}", len(block["rows"])
        table += [textwrap.fill(heading, WIDTH, subsequent_indent="  ").replace("\xa0", " "), *lines[:count], ""]
        del lines[:count]
    seeds = len(contrasts[0]["rows"][0][contrasts[0]["reference"]]["by_seed"])
    larger = ", or the interval's if that is larger" if len(contrasts) > 1 else ""
    notes = (
        f"Differences in percentage points, paired by question; p: McNemar's exact test{larger} (*: Holm's correction "
        "for several contrasts, and categories); detectable: what one contrast shows in 4 of 5 runs, before that "
        "correction."
    )
    notes += f" {_seeds_note('Values', seeds)}"
    notes = [textwrap.fill(note, WIDTH) for note in (notes, *_step_notes(contrasts[0]["rows"]))]
    return "\n".join([*table, *notes, "", *_differences(contrasts, seeds)])


def _differences(contrasts: list[dict], seeds: int) -> list[str]:
    """Return in what the groups of each contrast differ, a paragraph for all that differ alike."""
    alike: dict[str, list[str]] = {}
    for contrast in contrasts:
        alike.setdefault(differences_in_words(contrast["differs_in"], seeds), []).append(contrast_name(contrast))
    lines = [f"{', '.join(names)}: {words}" for words, names in alike.items()]
    return [textwrap.fill(line, WIDTH, subsequent_indent="  ") for line in lines]


def _comparison_table(rows: list[dict], reference: str, other: str, data: str) -> str:
    columns = [name for name in measure_table(rows, reference, other)[0] if name != "effect h"]
    cells = [tuple(row[name] for name in columns) for row in measure_table(rows, reference, other)]
    notes = (
        f"Differences in percentage points, {other} minus {reference}, paired by question; p: McNemar's exact test\n"
        "(*: Holm's correction for several categories); detectable: what these questions show in 4 of 5 runs."
    )
    notes += f"\n{_seeds_note('Accuracies', len(rows[0][reference]['by_seed']))}"
    notes = "\n".join([notes, *(textwrap.fill(note, WIDTH) for note in _step_notes(rows))])
    return f"{aligned([(columns[0] + data, *columns[1:]), *cells], left=(0, 8))}\n\n{notes}"


def _seeds_note(what: str, seeds: int) -> str:
    if seeds == 1:
        return "One seed each: what holds for these models need not hold for other seeds."
    return f"{what} are means ± standard deviations over {seeds} seeds; the interval covers seeds too."


def _step_notes(rows: list[dict]) -> tuple[str, ...]:
    return (STEPS_NOTE, BITS_NOTE) if any(map(is_bits, rows)) else ()


def _usage_table(usage: dict, data: str) -> str:
    cells = [(f"replies{data}", "group", "tokens each", "facts each", "facts in all", "ended by end-of-text")]
    for name, groups in usage.items():
        for label, figures in groups.items():
            tokens, facts = f"{figures['avg_response_tokens']:.1f}", f"{figures['mul_tokens_per_response']:.2f}"
            in_all, finished = str(figures["mul_token_count"]), percent(figures["finished_rate"])
            cells.append((name, label, tokens, facts, in_all, finished))
    return aligned(cells, left=(0, 1))


if __name__ == "__main__":
    run(main)
