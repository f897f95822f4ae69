"""Make a start model for a condition: give any causal language model the vocabulary with fact tokens.

Every condition gets the same vocabulary, architecture and weights from one source; only the record differs. Several
conditions may share one start model.

Example:
  uv run python scripts/prepare_base.py --source openai-community/gpt2 --condition baseline \\
      --output-dir outputs/hf_baseline_10b
"""

import argparse
from pathlib import Path

from domain_tokens import toy
from domain_tokens.runs.command_line import CommandParser, run
from domain_tokens.runs.errors import InputError
from domain_tokens.runs.names import INITS
from domain_tokens.runs.terminal import say

ACTIVATIONS = {"gelu": "gelu", "gelu_tanh": "gelu_new"}  # what --activation takes, and transformers' names


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = CommandParser(__doc__)
    parser.add_path("--source", help="Hub id, model folder, .gguf file, or nanoGPT checkpoint .pt")
    parser.add_argument("--toy", action="store_true", help="a tiny model with random weights instead of a source")
    parser.add_number("--layers", 1, help=f"of the toy model (default: {toy.LAYERS})")
    parser.add_condition(required=True, nargs="+", help="may train from this model; it counts as the first one's")
    parser.add_path("--output-dir", required=True, help="folder to write the start model to")
    parser.add_path("--tokenizer", help="Hub id or folder to take the tokenizer from (default: the source's own)")
    parser.add_argument("--activation", choices=ACTIVATIONS, help="of a nanoGPT checkpoint (default: as its keys tell)")
    parser.add_argument(
        "--init", choices=INITS,
        help="rows of new tokens: mean of the pieces of a*b=c, mean of all rows, or random (default: pieces; a model "
        "pretrained with these tokens keeps its rows)",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=42, help="of the toy model and of --init random (default: 42)")
    parser.add_argument("--resume", action="store_true", help="do nothing if --output-dir holds a start model")
    parser.add_argument("--overwrite", action="store_true", help="replace the model that --output-dir holds")
    args = parser.parse(argv)
    if bool(args.source) == args.toy:
        raise InputError("give either --source SRC or --toy; --help shows what a source can be")
    if len(set(args.condition)) < len(args.condition):
        raise InputError(f"--condition {' '.join(args.condition)} names one twice; give each once")
    if args.layers and not args.toy:
        raise InputError("--layers is for --toy; a source has its own")
    if args.toy and args.activation:
        raise InputError("--activation is for nanoGPT checkpoints (.pt), not for --toy; leave it out")
    return args


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    # torch and transformers take seconds to import, which --help and usage errors need not wait for
    from domain_tokens.models.record import history_of_source
    from domain_tokens.runs.files import shown_source
    from domain_tokens.runs.folders import begin_run, claim_folder
    from domain_tokens.runs.names import RECORD_NAME, UNFINISHED

    start = {
        "stage": "prepare_base",
        "source": "toy" if args.toy else shown_source(args.source),
        "seed": args.seed if args.toy or args.init == "random" else None,
    }
    if args.layers:
        start["layers"] = args.layers
    if args.init:
        start["init"] = args.init
    if args.activation:
        start["activation"] = ACTIVATIONS[args.activation]
    condition, *others = args.condition
    history = [] if args.toy else history_of_source(args.source)
    settings = {"condition": condition, "lineage": [*history, start]}
    if others:
        settings["may_start"] = args.condition
    output, complete = claim_folder(
        args.output_dir, RECORD_NAME, settings, overwrite=args.overwrite, resume=args.resume, holds_model=True,
        made_from=args.source,
    )  # fmt: skip
    if complete:
        say(f"{output} is complete already")
        return
    conditions = " or ".join(args.condition)
    say(f"Preparing {'the toy model' if args.toy else args.source} for condition {conditions}, to {output}")
    mark = output / UNFINISHED
    begin_run(mark, settings)
    try:
        make_start_model(args, history, start, output)
    finally:
        mark.unlink(missing_ok=True)  # nothing is written before the model is checked


def make_start_model(args: argparse.Namespace, history: list[dict], start: dict, output: Path) -> None:
    """Load, extend, check and save. history, start: the record's lineage; `start` is completed here."""
    from domain_tokens.hub.client import prepare_client
    from domain_tokens.models.folder import save_model, verify_model
    from domain_tokens.models.sources import load_source
    from domain_tokens.models.vocabulary import extend_vocabulary
    from domain_tokens.runs.names import RECORD_NAME
    from domain_tokens.runs.provenance import environment

    condition = args.condition[0]
    if args.toy:
        tokenizer = toy.tokenizer()
        model = toy.model(len(tokenizer), tokenizer.eos_token_id, args.seed, args.layers or toy.LAYERS)
    else:
        prepare_client(say=say)
        model, tokenizer = load_source(args.source, args.tokenizer, start.get("activation"))
    added, begun = extend_vocabulary(model, tokenizer, args.init, args.seed)
    start["init"] = begun or "pretrained"
    verify_model(model, tokenizer, args.source or output, None)

    where = environment("cpu")
    names = ("activation_function", "hidden_act", "hidden_activation")
    start["activation"] = next((found for name in names if (found := getattr(model.config, name, None))), None)
    start |= {"commit": where["commit"], "dirty": where["dirty"]}
    opened = save_model(
        output, model, tokenizer, condition, [*history, start], may_start=args.condition,
        check=lambda written: reopen(written, condition, args.source or "the toy model"),
    )  # fmt: skip
    size = model.num_parameters() / 1e6
    say(f"{size:.1f}M parameters, {len(tokenizer):,} tokens, {added} of them new, checked: {output}")
    record = (
        {"condition": " or ".join(args.condition)}
        | start
        | {"weights": opened.weights[:12], "decoding": opened.decoding}
    )
    say(f"{RECORD_NAME}: " + ", ".join(f"{name} {value}" for name, value in record.items() if value is not None))


def reopen(written: Path, condition: str, source: str):
    """Open the model that was written, not what is in memory; some architectures are not what their config says."""
    from domain_tokens.models.folder import open_model

    try:
        return open_model(str(written), condition)
    except InputError as error:
        reason = str(error).removeprefix(f"model folder {written}").partition(";")[0].lstrip(" :")
        raise InputError(
            f"{source} cannot be opened again with the new tokens ({reason}); choose another source"
        ) from error


if __name__ == "__main__":
    run(main)
