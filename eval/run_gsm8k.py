"""Ask a model the GSM8K test questions, greedily, and save every reply.

Example:
  uv run python eval/run_gsm8k.py --model-path outputs/sft_gsm8k_baseline --output-dir outputs/eval_baseline
"""

import argparse
from pathlib import Path

from domain_tokens.runs.command_line import gsm8k_eval_parser, run
from domain_tokens.runs.names import GSM8K_EVAL

CONFIG = Path(__file__).parent / "configs" / "gsm8k.yaml"


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    return gsm8k_eval_parser(__doc__, GSM8K_EVAL, CONFIG).parse(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    # Imported late: --help and usage errors need not wait for torch and transformers.
    from domain_tokens.evaluation.run import evaluate
    from domain_tokens.evaluation.task import Gsm8k

    evaluate(Gsm8k, args)


if __name__ == "__main__":
    run(main, can_resume=True)
