"""Ask a model arithmetic questions, greedily, and save every reply: the 9×9 table, products and sums.

Example:
  uv run python eval/run_arithmetic_probes.py --model-path outputs/sft_gsm8k_baseline --output-dir outputs/eval_baseline
"""

import argparse
from pathlib import Path

from domain_tokens.runs.command_line import eval_parser, run
from domain_tokens.runs.names import PROBES_EVAL
from domain_tokens.runs.terminal import say

CONFIG = Path(__file__).parent / "configs" / "probes.yaml"


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    return eval_parser(__doc__, PROBES_EVAL, CONFIG, seed="draws the two-digit products and the sums").parse(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    # Imported late: --help and usage errors need not wait for torch and transformers.
    from domain_tokens.evaluation.questions import make_probes
    from domain_tokens.evaluation.run import evaluate, evaluation_summary
    from domain_tokens.evaluation.task import Task
    from domain_tokens.runs import processes
    from domain_tokens.runs.config import load_config
    from domain_tokens.runs.config_schema import ProbesEvalConfig

    tell = processes.once(say)
    loaded = load_config(args.config, ProbesEvalConfig, args.overrides, {"seed": args.seed})

    def make_task():
        probes = make_probes(loaded.config)
        return Task(PROBES_EVAL, lambda tokenizer: probes)

    evaluate(PROBES_EVAL, loaded, args, "the arithmetic probes", make_task, evaluation_summary, tell)


if __name__ == "__main__":
    run(main, can_resume=True)
