"""Ask a model for each next line of the GSM8K test solutions, and measure the bits of the text all conditions share.

Example:
  uv run python eval/run_gsm8k_steps.py --model-path outputs/sft_gsm8k_baseline --output-dir outputs/eval_baseline
"""

import argparse
from pathlib import Path

from domain_tokens.runs.command_line import eval_parser, run
from domain_tokens.runs.names import STEPS_EVAL
from domain_tokens.runs.terminal import say

CONFIG = Path(__file__).parent / "configs" / "steps.yaml"


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = eval_parser(__doc__, STEPS_EVAL, CONFIG, seed="recorded; greedy replies do not depend on it")
    parser.add_path("--dataset-path", help="Hub id, folder with test.jsonl or Parquet, or one file")
    parser.add_argument("--max-samples", type=int, help="take the steps of only the first so many questions")
    return parser.parse(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    # Imported late: --help and usage errors need not wait for torch and transformers.
    from domain_tokens.data.readers import open_rows
    from domain_tokens.evaluation.questions import gsm8k_rows
    from domain_tokens.evaluation.run import claim_evaluation, run_evaluation
    from domain_tokens.evaluation.steps import Steps, steps_summary
    from domain_tokens.hub.client import prepare_client
    from domain_tokens.runs import processes
    from domain_tokens.runs.config import load_config
    from domain_tokens.runs.config_schema import Gsm8kEvalConfig

    tell = processes.once(say)
    flags = {"seed": args.seed, "dataset": args.dataset_path, "max_samples": args.max_samples}
    loaded = load_config(args.config, Gsm8kEvalConfig, args.overrides, flags)
    output, complete, settings = claim_evaluation(STEPS_EVAL, loaded, args)
    if complete:
        tell(f"{output} holds this evaluation already")
        return
    tell(f"Asking {args.model_path} for the steps of {loaded.config.dataset}, to {output}")
    tell(loaded.as_yaml())

    prepare_client(say=tell)
    rows = open_rows(loaded.config.dataset, loaded.config.subset, "test")

    def find_rows(tokenizer):
        usable, left_out = gsm8k_rows(rows, tokenizer)
        if left_out:
            tell(f"unusable rows left out: {left_out}")
        return dict(list(usable.items())[: loaded.config.max_samples])

    tell(steps_summary(run_evaluation(Steps(find_rows, tell), loaded, output, settings, args)))


if __name__ == "__main__":
    run(main, can_resume=True)
