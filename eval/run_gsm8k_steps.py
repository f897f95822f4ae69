"""Ask a model for each next line of the GSM8K test solutions, and measure the bits of the text all conditions share.

Example:
  uv run python eval/run_gsm8k_steps.py --model-path outputs/sft_gsm8k_baseline --output-dir outputs/eval_baseline
"""

import argparse
from pathlib import Path

from domain_tokens.runs.command_line import gsm8k_eval_parser, run
from domain_tokens.runs.names import STEPS_EVAL
from domain_tokens.runs.terminal import say

CONFIG = Path(__file__).parent / "configs" / "steps.yaml"


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    return gsm8k_eval_parser(__doc__, STEPS_EVAL, CONFIG).parse(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    # Imported late: --help and usage errors need not wait for torch and transformers.
    from domain_tokens.data.readers import open_rows
    from domain_tokens.evaluation.questions import gsm8k_id, gsm8k_rows
    from domain_tokens.evaluation.run import evaluate
    from domain_tokens.evaluation.steps import Steps, steps_summary
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

        def solutions(tokenizer):
            usable, left_out = gsm8k_rows(rows, tokenizer)
            if left_out:
                tell(f"unusable rows left out: {left_out}")
            return {gsm8k_id(i): usable[i] for i in list(usable)[: loaded.config.max_samples]}

        return Steps(solutions, tell)

    what = f"for the steps of {loaded.config.dataset}"
    evaluate(STEPS_EVAL, loaded, args, what, make_task, steps_summary, tell)


if __name__ == "__main__":
    run(main, can_resume=True)
