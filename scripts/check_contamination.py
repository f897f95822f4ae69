"""Report which evaluation questions share long word n-grams with training rows, by source.

Asked are the test questions of GSM8K and the 281 arithmetic probes, looked for are 13 of their words in a row in any
message of a row, without case and punctuation and whatever the numbers; shorter questions are looked for as a whole,
with their numbers. Every usable row of the training split is read, whichever of them a stage may draw.

Example:
  uv run python scripts/check_contamination.py --train-data data/tulu data/gsm8k --questions data/gsm8k
"""

import argparse
from pathlib import Path

from domain_tokens.data.contamination import NGRAM
from domain_tokens.runs.command import CommandParser, run
from domain_tokens.runs.errors import InputError
from domain_tokens.runs.terminal import aligned

PROBES_CONFIG = Path(__file__).parents[1] / "eval/configs/probes.yaml"
EXAMPLES = 5  # hits to show of each kind of questions
GSM8K, PROBES = "GSM8K questions", "probes"


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = CommandParser(__doc__)
    parser.add_argument(
        "--train-data", required=True, nargs="+", metavar="DATASET",
        help="training rows of either stage, in Tulu's form or GSM8K's: Hub ids, folders with train.jsonl, or files",
    )  # fmt: skip
    parser.add_argument("--questions", required=True, help="GSM8K: Hub id, folder with test.jsonl, or one file")
    parser.add_argument("--ngram", type=int, default=NGRAM, help=f"words in a row (default: {NGRAM})")
    parser.add_argument("--seed", type=int, default=42, help="draws the probes, as in their evaluation (default: 42)")
    parser.add_argument("--output-path", help="write all figures and every hit to this JSON file")
    args = parser.parse(argv)
    if args.ngram < 1:
        raise InputError(f"--ngram is {args.ngram}, expected at least 1 word")
    if repeated := {path for path in args.train_data if args.train_data.count(path) > 1}:
        raise InputError(f"--train-data {min(repeated)} is given more than once")
    if args.output_path and Path(args.output_path).is_dir():
        raise InputError(f"output {args.output_path} is a folder, expected a file")
    return args


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    # the Hub's client takes long to import, which --help and usage errors need not wait for
    from domain_tokens.data.contamination import Questions
    from domain_tokens.data.conversations import conversation_of_any
    from domain_tokens.data.readers import open_rows, subset_of
    from domain_tokens.data.splits import check_rows, evaluation_questions, find_questions, unusable_text
    from domain_tokens.evaluation.questions import gsm8k_id, make_probes
    from domain_tokens.hub.client import prepare_client
    from domain_tokens.runs.config import load_config
    from domain_tokens.runs.files import shown_source, write_json
    from domain_tokens.runs.provenance import environment
    from domain_tokens.runs.recipes import ProbesEvalConfig

    prepare_client(say=print)
    texts, left_out = evaluation_questions(args.questions)
    if left_out:
        print(f"{args.questions}: unusable questions left out: {left_out}")
    asked = {gsm8k_id(i): text for i, text in texts.items()}
    gsm8k = frozenset(asked)
    probes = load_config(PROBES_CONFIG, ProbesEvalConfig, flags={"seed": args.seed}).config
    asked |= {probe.id: probe.text for probe in make_probes(probes)}
    ids = list(asked)
    questions = Questions(list(asked.values()), args.ngram)
    print(
        f"{len(gsm8k):,} test questions of {args.questions} and {len(ids) - len(gsm8k)} probes: {args.ngram} words in "
        f"a row, {questions.short} shorter ones as a whole\n"
    )

    sources, hits = [], []
    for dataset in args.train_data:
        rows = open_rows(dataset, subset_of(dataset), "train")
        usable, unusable = check_rows(rows, conversation_of_any)
        if unusable:
            print(f"{rows.origin}: unusable rows left out: {unusable_text(unusable)}")
        counts, found = find_questions(rows, usable, conversation_of_any, questions)
        shown = shown_source(dataset)
        for source in sorted(counts):
            own = [hit for hit in found if hit.source == source]
            shared = sorted({ids[i] for hit in own for i in hit.shared})
            sources.append({
                "dataset": shown, "source": source, "rows": counts[source], "rows_hit": len(own),
                "questions_hit": shared,
            })  # fmt: skip
        for hit in found:
            for i, ngram in hit.shared.items():
                hits.append({
                    "question": ids[i], "dataset": shown, "source": hit.source, "line": rows.numbers[hit.row],
                    "row_id": hit.row_id, "words": ngram,
                })  # fmt: skip

    print(_table(sources, gsm8k, len(ids)))
    if hits:
        print(f"\n{_examples(hits, gsm8k)}")
    if args.output_path:
        output = Path(args.output_path)
        output.parent.mkdir(parents=True, exist_ok=True)
        figures = {
            "ngram": args.ngram, "seed": args.seed, "questions": shown_source(args.questions),
            "gsm8k_questions": len(gsm8k), "probes": len(ids) - len(gsm8k), "compared_as_a_whole": questions.short,
            "rows": sum(source["rows"] for source in sources),
            "rows_hit": sum(source["rows_hit"] for source in sources),
            "questions_hit": sorted({hit["question"] for hit in hits}),
            "sources": sources, "hits": hits, "environment": environment("cpu"),
        }  # fmt: skip
        write_json(output, figures)
        print(f"\nwrote {output}")


def _table(sources: list[dict], gsm8k: frozenset[str], asked: int) -> str:
    cells = [("training data", "source", "rows", "rows that share", GSM8K, PROBES)]
    for part in sources:
        cells.append((part["dataset"], part["source"], *_figures([part], gsm8k)))
    if len(sources) > 1:
        cells.append(("all", "", *_figures(sources, gsm8k)))
    return (
        aligned(cells, left=(0, 1))
        + f"\n\nRows that share with any question; of {len(gsm8k):,} questions and {asked - len(gsm8k)} probes, those "
        "that any row shares with."
    )


def _figures(sources: list[dict], gsm8k: frozenset[str]) -> tuple[str, ...]:
    questions = {question for part in sources for question in part["questions_hit"]}
    rows, rows_hit = (sum(part[key] for part in sources) for key in ("rows", "rows_hit"))
    return tuple(f"{count:,}" for count in (rows, rows_hit, len(questions & gsm8k), len(questions - gsm8k)))


def _examples(hits: list[dict], gsm8k: frozenset[str]) -> str:
    """The first row of each of the first questions and probes."""
    first: dict[str, dict] = {}
    for hit in hits:
        first.setdefault(hit["question"], hit)
    kinds = [[hit for question, hit in first.items() if (question in gsm8k) == is_gsm8k] for is_gsm8k in (True, False)]
    cells = [("question", "training data", "line", "id", "words in a row, # for numbers")]
    for hit in [hit for kind in kinds for hit in kind[:EXAMPLES]]:
        cells.append((hit["question"], hit["dataset"], str(hit["line"]), hit["row_id"], hit["words"]))
    return aligned(cells, left=(0, 1, 3, 4))


if __name__ == "__main__":
    run(main)
