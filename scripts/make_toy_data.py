"""Write the toy world's chats and word problems, for run_experiment.py and for trying the stages by hand.

Example:
  uv run python scripts/make_toy_data.py --output-dir outputs/toy/data
"""

import argparse
from pathlib import Path

from domain_tokens import toy
from domain_tokens.runs.command_line import CommandParser, run
from domain_tokens.runs.files import jsonl_text
from domain_tokens.runs.folders import write_data
from domain_tokens.runs.terminal import say

DRILLS = 0.2  # share of bare products and sums among the training problems


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = CommandParser(__doc__)
    parser.add_data_dir("tulu/train.jsonl and gsm8k/{train,test}.jsonl")
    parser.add_number("--chats", 1, default=7000, help="rows of tulu/train.jsonl (default: 7000)")
    parser.add_number("--problems", 1, default=7000, help="rows of gsm8k/train.jsonl (default: 7000)")
    parser.add_number("--test-problems", 1, default=200, help="rows of gsm8k/test.jsonl (default: 200)")
    meaning = "share of problems that multiply 11..60, or a product of the table, by a digit (default: 0)"
    parser.add_number("--two-digit", 0, 1, kind=float, default=0.0, help=meaning)
    parser.add_argument("--seed", type=int, default=42, help="draws every row (default: 42)")
    return parser.parse(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    output = Path(args.output_dir)
    test = list(toy.word_problems(args.test_problems, args.seed + 1, two_digit=args.two_digit))
    asked = frozenset(row["question"] for row in test)
    train = toy.word_problems(args.problems, args.seed, exclude=asked, drills=DRILLS, two_digit=args.two_digit)
    files = {"tulu/train.jsonl": toy.chats(args.chats, args.seed), "gsm8k/train.jsonl": train, "gsm8k/test.jsonl": test}
    write_data(output, {name: jsonl_text(rows).encode() for name, rows in files.items()}, args.overwrite)
    for name in files:
        say(f"wrote {output / name}")


if __name__ == "__main__":
    run(main)
