"""Ask a model arithmetic questions, greedily, and save every reply: the 9×9 table, products and sums.

Example:
  uv run python eval/run_arithmetic_probes.py --model-path outputs/sft_gsm8k_baseline --output-dir outputs/eval_baseline
"""

import argparse
from pathlib import Path

from domain_tokens.runs.command_line import eval_parser, run
from domain_tokens.runs.names import PROBES_EVAL

CONFIG = Path(__file__).parent / "configs" / "probes.yaml"


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    return eval_parser(__doc__, PROBES_EVAL, CONFIG, seed="draws the two-digit products and the sums").parse(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    # Imported late: --help and usage errors need not wait for torch and transformers.
    from domain_tokens.evaluation.run import evaluate
    from domain_tokens.evaluation.task import Probes

    evaluate(Probes, args)


if __name__ == "__main__":
    run(main, can_resume=True)
