"""Stage 2: supervised fine-tuning of a stage-1 model on the GSM8K training split.

Example:
  uv run python sft/sft_gsm8k.py --model-path outputs/sft_tulu_mul_tokens --output-dir outputs/sft_gsm8k_mul_tokens \\
      --condition mul_tokens --inject-mul-tokens --config sft/configs/gsm8k.yaml
"""

import argparse

from domain_tokens.runs.command import one_line_usage_errors, run


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--model-path", required=True, help="folder of the stage-1 model")
    parser.add_argument("--output-dir", required=True, help="folder to write the trained model to")
    parser.add_argument("--condition", required=True, choices=["baseline", "mul_tokens"])
    parser.add_argument("--config", required=True, help="YAML recipe, see sft/configs/gsm8k.yaml")
    parser.add_argument("--dataset-path", help="Hub id, folder with train.jsonl or Parquet, or one file")
    parser.add_argument("--max-train-samples", type=int, help="train on at most so many rows")
    parser.add_argument("--seed", type=int, help="draws the rows, their order and the dropout")
    parser.add_argument(
        "--inject-mul-tokens", action=argparse.BooleanOptionalAction, default=None,
        help="facts in answers; implied by --condition mul_tokens, --no-… is the ablation",
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
    from domain_tokens.data.conversations import gsm8k_conversation
    from domain_tokens.runs.names import GSM8K_SFT_RESULTS
    from domain_tokens.training.stage import run_stage

    run_stage("sft_gsm8k", GSM8K_SFT_RESULTS, gsm8k_conversation, args, say=print)


if __name__ == "__main__":
    run(main, can_resume=True)
