"""Make a start model for a condition: any causal language model, brought to the vocabulary with fact tokens.

Both conditions get the same vocabulary, architecture and weights from one source; only the record differs.

Example:
  uv run python scripts/prepare_base.py --source openai-community/gpt2 --condition baseline \\
      --output-dir outputs/hf_baseline_10b
"""

import argparse
from functools import partial

from domain_tokens.runs.command import CommandParser, on_failure, run
from domain_tokens.runs.errors import InputError
from domain_tokens.runs.terminal import say


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = CommandParser(__doc__)
    parser.add_path("--source", help="Hub id, model folder, .gguf file, or nanoGPT checkpoint .pt")
    parser.add_argument("--toy", action="store_true", help="a tiny model with random weights instead of a source")
    parser.add_condition(required=True)
    parser.add_path("--output-dir", required=True, help="folder to write the start model to")
    parser.add_path("--tokenizer", help="Hub id or folder to take the tokenizer from (default: the source's own)")
    parser.add_argument("--seed", type=int, default=42, help="weights of the toy model (default: 42)")
    parser.add_argument("--resume", action="store_true", help="do nothing if --output-dir holds a start model")
    parser.add_argument("--overwrite", action="store_true", help="replace the model that --output-dir holds")
    args = parser.parse(argv)
    if bool(args.source) == args.toy:
        raise InputError("give either --source SRC or --toy; --help shows what a source can be")
    return args


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    # torch and transformers take seconds to import, which --help and usage errors need not wait for
    from domain_tokens import toy
    from domain_tokens.hub.client import prepare_client
    from domain_tokens.models.folder import open_model, save_model
    from domain_tokens.models.sources import load_source
    from domain_tokens.models.vocabulary import extend_vocabulary, verify_vocabulary
    from domain_tokens.runs.files import shown_source
    from domain_tokens.runs.folders import begin_run, claim_folder
    from domain_tokens.runs.names import RECORD_NAME, UNFINISHED
    from domain_tokens.runs.provenance import environment

    start = {
        "stage": "prepare_base",
        "source": "toy" if args.toy else shown_source(args.source),
        "seed": args.seed if args.toy else None,
    }
    settings = {"condition": args.condition, "lineage": [dict(start)]}
    output, complete = claim_folder(
        args.output_dir,
        RECORD_NAME,
        settings,
        overwrite=args.overwrite,
        resume=args.resume,
        holds_model=True,
        made_from=args.source,
    )
    if complete:
        say(f"{output} is complete already")
        return
    say(f"Preparing {'the toy model' if args.toy else args.source} for condition {args.condition}, to {output}")
    begin_run(output / UNFINISHED, settings)
    on_failure(partial((output / UNFINISHED).unlink, missing_ok=True))
    if args.toy:
        tokenizer = toy.tokenizer()
        model = toy.model(len(tokenizer), tokenizer.eos_token_id, args.seed)
    else:
        prepare_client(say=say)
        model, tokenizer = load_source(args.source, args.tokenizer)
    added = extend_vocabulary(model, tokenizer)
    verify_vocabulary(tokenizer, model, output, args.condition)

    where = environment("cpu")
    start |= {"commit": where["commit"], "dirty": where["dirty"]}
    save_model(output, model, tokenizer, args.condition, [start])
    (output / UNFINISHED).unlink()
    open_model(str(output), args.condition)  # what was written is what will be opened
    size = model.num_parameters() / 1e6
    say(f"{size:.1f}M parameters, {len(tokenizer):,} tokens, {added} of them new, checked: {output}")


if __name__ == "__main__":
    run(main)
