"""Write one-step word problems, one multiplication each, as a GSM8K-shaped dataset for eval/run_gsm8k.py.

Every product of the table is asked in both orders of its operands, and products of two digits by one digit are drawn.

Example:
  uv run python scripts/make_word_problems.py --output-dir data/one_step
  uv run python eval/run_gsm8k.py --model-path outputs/sft_gsm8k_baseline --output-dir outputs/eval_one_step \\
      --dataset-path data/one_step
"""

import argparse
import random
import re
from collections.abc import Iterator
from pathlib import Path

from domain_tokens.runs.command_line import CommandParser, run
from domain_tokens.runs.files import jsonl_text
from domain_tokens.runs.folders import write_data
from domain_tokens.runs.terminal import say
from domain_tokens.toy import NAMES

# A story, its question and the sentence of its solution; [n|one|many] is a number with its noun.
TEMPLATES = (
    ("{name} buys [a|pack|packs] of pencils. There {is_or_are} [b|pencil|pencils] in every pack.",
     "How many pencils does {name} buy?", "{name} buys {step} pencils."),
    ("A cinema has [a|row|rows] with [b|seat|seats] in each.",
     "How many seats does the cinema have?", "There are {step} seats."),
    ("{name} runs [b|mile|miles] a day.", "How many miles does {name} run in [a|day|days]?",
     "{name} runs {step} miles."),
    ("A ticket for the zoo costs $[b].", "What is the price of [a|ticket|tickets] in dollars?",
     "The price is {step} dollars."),
    ("{name} reads [b|page|pages] every evening for [a|evening|evenings].",
     "How many pages does {name} read in all?", "{name} reads {step} pages."),
    ("A farmer picks [b|basket|baskets] of plums an hour.",
     "How many baskets does the farmer pick in [a|hour|hours]?", "The farmer picks {step} baskets."),
    ("{name} bakes [a|tray|trays] of cookies, and each tray holds [b|cookie|cookies].",
     "How many cookies does {name} bake?", "{name} bakes {step} cookies."),
    ("A bus makes [a|trip|trips] a day and carries [b|passenger|passengers] on each.",
     "How many passengers does it carry in a day?", "The bus carries {step} passengers."),
    ("{name} plants [a|row|rows] of trees, [b|tree|trees] to a row.",
     "How many trees does {name} plant?", "{name} plants {step} trees."),
    ("A nurse works [b|hour|hours] in each shift.", "How many hours does she work in [a|shift|shifts]?",
     "She works {step} hours."),
    ("{name} earns $[b] for every lawn and mows [a|lawn|lawns].",
     "How many dollars does {name} earn?", "{name} earns {step} dollars."),
    ("For a game, every child needs [b|card|cards].",
     "How many cards does it take for [a|child|children]?", "It takes {step} cards."),
)  # fmt: skip

_SLOT = re.compile(r"\[([ab])(?:\|(\w+)\|(\w+))?\]")


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = CommandParser(__doc__)
    parser.add_data_dir("test.jsonl")
    parser.add_number("--rounds", 1, 100, default=4, help="problems for each of the 81 products (default: 4)")
    parser.add_number("--two-digit", 0, 10_000, default=276, help="problems of 10..99 times 2..9 (default: 276)")
    parser.add_argument("--seed", type=int, default=42, help="draws every problem (default: 42)")
    return parser.parse(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    output = Path(args.output_dir)
    problems = list(word_problems(args.rounds, args.two_digit, args.seed))
    write_data(output, {"test.jsonl": jsonl_text(problems).encode()}, args.overwrite)
    say(f"wrote {output / 'test.jsonl'}: {len(problems)} problems")


def word_problems(rounds: int, two_digit: int, seed: int) -> Iterator[dict[str, str]]:
    """Yield distinct problems in the schema of GSM8K: the table `rounds` times, and two digits by one digit."""
    rng = random.Random(f"one-step-{seed}")
    pairs = [(a, b) for _ in range(rounds) for a in range(1, 10) for b in range(1, 10)]
    for _ in range(two_digit):
        pair = rng.randint(2, 9), rng.randint(10, 99)
        pairs.append(pair if rng.random() < 0.5 else pair[::-1])
    rng.shuffle(pairs)
    asked: set[str] = set()
    for a, b in pairs:
        problem = _problem(rng, a, b)
        while problem["question"] in asked:
            problem = _problem(rng, a, b)
        asked.add(problem["question"])
        yield problem


def _problem(rng: random.Random, a: int, b: int) -> dict[str, str]:
    story, question, sentence = rng.choice(TEMPLATES)
    step = f"{a}*{b}=<<{a}*{b}={a * b}>>{a * b}"
    name = rng.choice(NAMES)
    asked = _with_numbers(f"{story} {question}", a, b).format(name=name, is_or_are="is" if b == 1 else "are")
    return {"question": asked, "answer": f"{sentence.format(name=name, step=step)}\n#### {a * b}"}


def _with_numbers(text: str, a: int, b: int) -> str:
    """Write `[a|pack|packs]` as "1 pack" or "6 packs", and `[a]` as the number alone."""
    numbers = {"a": a, "b": b}

    def counted(match: re.Match[str]) -> str:
        number = numbers[match[1]]
        return f"{number} {match[2] if number == 1 else match[3]}" if match[2] else str(number)

    return _SLOT.sub(counted, text)


if __name__ == "__main__":
    run(main)
