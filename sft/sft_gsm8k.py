"""Stage 2: supervised fine-tuning of a stage-1 model on the GSM8K training split.

Example:
  uv run python sft/sft_gsm8k.py --model-path outputs/sft_tulu_mul_tokens --output-dir outputs/sft_gsm8k_mul_tokens \\
      --condition mul_tokens --inject-mul-tokens --config sft/configs/gsm8k.yaml
"""

import argparse

from domain_tokens.runs.command_line import run, sft_parser


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    return sft_parser(__doc__, "stage-1 model", "sft/configs/gsm8k.yaml").parse(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    # torch and transformers take seconds to import, which --help and usage errors need not wait for
    from domain_tokens.data.conversations import gsm8k_conversation
    from domain_tokens.training.stage import run_stage

    run_stage("sft_gsm8k", gsm8k_conversation, args)


if __name__ == "__main__":
    run(main, can_resume=True)
