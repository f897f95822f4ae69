"""Stage 1: supervised fine-tuning of a start model on the Tulu-3 mixture.

Example:
  uv run python sft/sft_tulu.py --model-path outputs/hf_baseline_10b --output-dir outputs/sft_tulu_baseline \\
      --condition baseline --config sft/configs/tulu.yaml
"""

import argparse

from domain_tokens.errors import one_line_usage_errors, run

STAGE = "sft_tulu"


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
    from domain_tokens import checkpoints, config, data, results, training

    flags = {"seed": args.seed, "data.dataset": args.dataset_path, "data.train_samples": args.max_train_samples}
    loaded = config.load(args.config, config.SftConfig, args.overrides, flags)
    inject_facts = training.decide_injection(args.condition, args.inject_mul_tokens)
    settings = training.settings(loaded, args.model_path, args.condition, inject_facts)
    output, complete = results.claim_folder(
        args.output_dir,
        results.TULU_RESULTS,
        settings,
        overwrite=args.overwrite,
        resume=args.resume,
        holds_model=True,
        made_from=args.model_path,
    )
    if complete:
        print(f"{output} is complete already")
        return
    print(f"Training {args.model_path} on {loaded.config.data.dataset}, condition {args.condition}, to {output}")
    print(loaded.as_yaml())

    checkpoint = checkpoints.open_checkpoint(args.model_path, args.condition)
    split = data.read_training_split(loaded.config.data, loaded.config.seed, data.tulu_conversation)
    train, val = data.prepare_split(split, checkpoint.tokenizer, loaded.config.data, inject_facts)
    print(training.describe(checkpoint.tokenizer, train, val, split.unusable, inject_facts))

    trainer = training.make_trainer(checkpoint, train, val, loaded.config, output)
    outcome = training.train_and_save(
        trainer, checkpoint, STAGE, results.TULU_RESULTS, loaded, output, settings, split.unusable, args.resume
    )
    print(training.summary(outcome))


if __name__ == "__main__":
    run(main)
