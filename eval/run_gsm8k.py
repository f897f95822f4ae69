"""Ask a model the GSM8K test questions, greedily, and save every reply.

Example:
  uv run python eval/run_gsm8k.py --model-path outputs/sft_gsm8k_baseline --output-dir outputs/eval_baseline
"""

import argparse
from pathlib import Path

from domain_tokens.runs.command_line import gsm8k_eval_parser, run
from domain_tokens.runs.names import GSM8K_EVAL
from domain_tokens.runs.terminal import say

CONFIG = Path(__file__).parent / "configs" / "gsm8k.yaml"


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    return gsm8k_eval_parser(__doc__, GSM8K_EVAL, CONFIG).parse(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    # Imported late: --help and usage errors need not wait for torch and transformers.
    from domain_tokens.data.readers import open_rows
    from domain_tokens.evaluation.questions import gsm8k_questions
    from domain_tokens.evaluation.run import evaluate, evaluation_summary
    from domain_tokens.evaluation.task import Task
    from domain_tokens.hub.client import prepare_client
    from domain_tokens.runs import processes
    from domain_tokens.runs.config import load_config
    from domain_tokens.runs.config_schema import Gsm8kEvalConfig

    tell = processes.once(say)
    flags = {"seed": args.seed, "dataset": args.dataset_path, "max_samples": args.max_samples}
    loaded = load_config(args.config, Gsm8kEvalConfig, args.overrides, flags)

    def make_task():
        prepare_client(say=tell)
        rows = open_rows(loaded.config.dataset, loaded.config.subset, "test")

        def questions(tokenizer):
            asked, left_out = gsm8k_questions(rows, tokenizer)
            if left_out:
                tell(f"unusable rows left out: {left_out}")
            return asked[: loaded.config.max_samples]

        return Task(GSM8K_EVAL, questions)

    what = f"the questions of {loaded.config.dataset}"
    evaluate(GSM8K_EVAL, loaded, args, what, make_task, evaluation_summary, tell)


if __name__ == "__main__":
    run(main, can_resume=True)
