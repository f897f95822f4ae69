"""Stage 1: supervised fine-tuning of a start model on the Tulu-3 mixture.

Example:
  uv run python sft/sft_tulu.py --model-path outputs/hf_baseline_10b --output-dir outputs/sft_tulu_baseline \\
      --condition baseline --config sft/configs/tulu.yaml
"""

import argparse

from domain_tokens.runs.command import one_line_usage_errors, run


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--model-path", required=True, help="folder of the start model")
    parser.add_argument("--output-dir", required=True, help="folder to write the trained model to")
    parser.add_argument("--condition", required=True, choices=["baseline", "mul_tokens"])
    parser.add_argument("--config", required=True, help="YAML recipe, see sft/configs/tulu.yaml")
    parser.add_argument("--dataset-path", help="Hub id, folder with train.jsonl or Parquet, or one file")
    parser.add_argument("--max-train-samples", type=int, help="train on at most so many rows")
    parser.add_argument("--seed", type=int, help="draws the rows, their order and the dropout")
    parser.add_argument(
        "--inject-mul-tokens", action=argparse.BooleanOptionalAction, default=None,
        help="facts in assistant text; implied by --condition mul_tokens, --no-… is the ablation",
    )  # fmt: skip
    parser.add_argument(
        "--resume", action="store_true", help="continue the run in --output-dir from its last checkpoint"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the run that --output-dir holds")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="override any key of the config")
    return one_line_usage_errors(parser).parse_intermixed_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    # torch and transformers take seconds to import, which --help and usage errors need not wait for
    from domain_tokens.data.conversations import tulu_conversation
    from domain_tokens.runs.names import TULU_RESULTS
    from domain_tokens.training.stage import run_stage

    run_stage("sft_tulu", TULU_RESULTS, tulu_conversation, args, say=print)


if __name__ == "__main__":
    run(main, can_resume=True)
