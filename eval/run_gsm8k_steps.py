"""Ask a model for each next line of the GSM8K test solutions, and measure the bits of the text all conditions share.

Example:
  uv run python eval/run_gsm8k_steps.py --model-path outputs/sft_gsm8k_baseline --output-dir outputs/eval_baseline
"""

import argparse
from pathlib import Path

from domain_tokens.runs.command_line import gsm8k_eval_parser, run
from domain_tokens.runs.names import STEPS_EVAL

CONFIG = Path(__file__).parent / "configs" / "steps.yaml"


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    return gsm8k_eval_parser(__doc__, STEPS_EVAL, CONFIG).parse(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    # Imported late: --help and usage errors need not wait for torch and transformers.
    from domain_tokens.evaluation.run import evaluate
    from domain_tokens.evaluation.steps import Steps

    evaluate(Steps, args)


if __name__ == "__main__":
    run(main, can_resume=True)
