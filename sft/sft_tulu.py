"""Stage 1: supervised fine-tuning of a start model on the Tulu-3 mixture.

Example:
  uv run python sft/sft_tulu.py --model-path outputs/hf_baseline_10b --output-dir outputs/sft_tulu_baseline \\
      --condition baseline --config sft/configs/tulu.yaml
"""

import argparse

from domain_tokens.runs.command_line import run, sft_parser


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    return sft_parser(__doc__, "start model", "sft/configs/tulu.yaml").parse(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    # torch and transformers take seconds to import, which --help and usage errors need not wait for
    from domain_tokens.data.conversations import tulu_conversation
    from domain_tokens.training.stage import run_stage

    run_stage("sft_tulu", tulu_conversation, args)


if __name__ == "__main__":
    run(main, can_resume=True)
