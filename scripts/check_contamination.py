"""Report which evaluation questions share long word n-grams with training rows, by source.

The questions are GSM8K's test questions and the arithmetic probes. A row shares with a question if one of its
messages has 13 of the question's words in a row, whatever their case, punctuation and numbers. Shorter questions are
compared as a whole, with their numbers. Every usable row of the training split is read, not only those a stage draws.

Example:
  uv run python scripts/check_contamination.py --train-data data/tulu data/gsm8k --questions data/gsm8k
"""

import argparse
from collections.abc import Set
from pathlib import Path

from domain_tokens.data.contamination import NGRAM
from domain_tokens.runs.command_line import CommandParser, run
from domain_tokens.runs.errors import InputError
from domain_tokens.runs.terminal import aligned, say

PROBES_CONFIG = Path(__file__).parents[1] / "eval/configs/probes.yaml"
EXAMPLES = 5  # hits shown of each kind of question
GSM8K, PROBES = "GSM8K questions", "probes"


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = CommandParser(__doc__)
    parser.add_path(
        "--train-data", required=True, nargs="+", metavar="DATASET",
        help="training rows of either stage, in Tulu's form or GSM8K's: Hub ids, folders with train.jsonl, or files",
    )  # fmt: skip
    parser.add_path("--questions", required=True, help="GSM8K: Hub id, folder with test.jsonl, or one file")
    parser.add_number("--ngram", 1, default=NGRAM, help=f"words in a row (default: {NGRAM})")
    parser.add_argument("--seed", type=int, default=42, help="draws the probes, as in their evaluation (default: 42)")
    parser.add_output_path("write all figures and every hit to this JSON file")
    args = parser.parse(argv)
    given = [str(Path(path)) for path in args.train_data]
    if repeated := {path for path in given if given.count(path) > 1}:
        raise InputError(f"--train-data {min(repeated)} is given more than once")
    return args


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    # Imported here because the Hub's client takes long to import, which --help and usage errors need not wait for.
    from domain_tokens.data.contamination import Questions
    from domain_tokens.data.conversations import conversation_of_any
    from domain_tokens.data.readers import open_rows
    from domain_tokens.data.splits import check_rows, evaluation_questions, find_questions, unusable_text
    from domain_tokens.evaluation.questions import gsm8k_id, make_probes
    from domain_tokens.hub.client import prepare_client
    from domain_tokens.runs.config import load_config
    from domain_tokens.runs.config_schema import ProbesEvalConfig
    from domain_tokens.runs.files import shown_source, write_json
    from domain_tokens.runs.folders import output_file
    from domain_tokens.runs.provenance import environment

    output = output_file(args.output_path, "compared_as_a_whole", args.overwrite) if args.output_path else None
    prepare_client(say=say)
    texts, left_out = evaluation_questions(args.questions)
    if left_out:
        say(f"{args.questions}: unusable questions left out: {left_out}")
    gsm8k = {gsm8k_id(i): text for i, text in texts.items()}
    recipe = load_config(PROBES_CONFIG, ProbesEvalConfig, flags={"seed": args.seed}).config
    asked = gsm8k | {probe.id: probe.text for probe in make_probes(recipe)}
    ids, questions = list(asked), Questions(list(asked.values()), args.ngram)
    probes = len(asked) - len(gsm8k)
    say(
        f"{len(gsm8k):,} test questions of {args.questions} and {probes} probes: {args.ngram} words in "
        f"a row, {questions.short} shorter ones as a whole\n"
    )

    sources, hits = [], []
    for dataset in args.train_data:
        rows = open_rows(dataset, None, "train")
        usable, unusable = check_rows(rows, conversation_of_any)
        if unusable:
            say(f"{rows.origin}: unusable rows left out: {unusable_text(unusable)}")
        counts, found = find_questions(rows, usable, conversation_of_any, questions)
        shown = shown_source(dataset)
        for source, count in sorted(counts.items()):
            own = [hit.shared for hit in found if hit.source == source]
            sources.append({
                "dataset": shown, "source": source, "rows": count, "rows_hit": len(own),
                "questions_hit": sorted({ids[i] for shared in own for i in shared}),
            })  # fmt: skip
        hits += [
            {
                "question": ids[i], "dataset": shown, "source": hit.source, "line": rows.numbers[hit.row],
                "row_id": hit.row_id, "words": ngram,
            }
            for hit in found for i, ngram in hit.shared.items()
        ]  # fmt: skip

    say(
        _table(sources, gsm8k.keys()) + f"\n\nRows that share with any question; of {len(gsm8k):,} questions and "
        f"{probes} probes, those that any row shares with."
    )
    if hits:
        say(f"\n{_examples(hits, gsm8k.keys())}")
    if output:
        write_json(output, {
            "ngram": args.ngram, "seed": args.seed, "questions": shown_source(args.questions),
            "gsm8k_questions": len(gsm8k), "probes": probes, "compared_as_a_whole": questions.short,
            "rows": sum(source["rows"] for source in sources),
            "rows_hit": sum(source["rows_hit"] for source in sources),
            "questions_hit": sorted({hit["question"] for hit in hits}),
            "sources": sources, "hits": hits, "environment": environment("cpu"),
        })  # fmt: skip
        say(f"\nwrote {output}")


def _table(sources: list[dict], gsm8k: Set[str]) -> str:
    cells = [("training data", "source", "rows", "rows that share", GSM8K, PROBES)]
    groups = [(part["dataset"], part["source"], [part]) for part in sources]
    for dataset, source, parts in groups if len(sources) == 1 else [*groups, ("all", "", sources)]:
        rows, rows_hit = (sum(part[key] for part in parts) for key in ("rows", "rows_hit"))
        hit = {question for part in parts for question in part["questions_hit"]}
        cells.append((dataset, source, *(f"{n:,}" for n in (rows, rows_hit, len(hit & gsm8k), len(hit - gsm8k)))))
    return aligned(cells, left=(0, 1))


def _examples(hits: list[dict], gsm8k: Set[str]) -> str:
    """Return a table of the first hit of each of the first questions and probes."""
    first = {hit["question"]: hit for hit in reversed(hits)}
    shown = {hit["question"]: first[hit["question"]] for hit in hits}.values()
    cells = [("question", "training data", "line", "id", "words in a row, # for numbers")]
    for is_gsm8k in (True, False):
        for hit in [hit for hit in shown if (hit["question"] in gsm8k) == is_gsm8k][:EXAMPLES]:
            cells.append((hit["question"], hit["dataset"], str(hit["line"]), hit["row_id"], hit["words"]))
    return aligned(cells, left=(0, 1, 3, 4))


if __name__ == "__main__":
    run(main)
