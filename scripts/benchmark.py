"""Measure training and evaluation against the reference recipe, side by side in one run.

The reference trains with the Trainer's defaults on rows padded to max_length, and evaluates batches of 32 in file order
until the longest reply is done. Both sides get the same rows, weights and steps; the exit code is 1 if their losses or
replies differ. Figures are medians over the repeats. Padding does not count as tokens.

Example:
  uv run python scripts/benchmark.py --train-data data/gsm8k --max-length 512
  uv run python scripts/benchmark.py --model-path outputs/toy/sft_gsm8k_baseline --questions data/gsm8k
"""

import argparse
import copy
import dataclasses
import json
import statistics
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from domain_tokens.conditions import CONDITIONS
from domain_tokens.runs.command_line import CommandParser, run
from domain_tokens.runs.errors import InputError, RunError
from domain_tokens.runs.terminal import aligned, say

STEP_ROWS = 32
TOY_VOCABULARY = 2000
SETTINGS = {"num_train_epochs": 1, "learning_rate": 1e-4, "logging_strategy": "no", "save_strategy": "no"}
LOSS_TOLERANCE = {"cpu": 1e-4, "cuda": 1e-2}  # relative; sums in bfloat16 depend on the layout
# Peak floating-point operations a second, dense bfloat16 on tensor cores, from NVIDIA's data sheets.
PEAK_FLOPS = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "RTX 4090": 165e12}


# name: default, least, help
INTEGERS = {
    "rows": (512, STEP_ROWS, "training rows (default: 512)"),
    "max-length": (512, 2, "longest row in tokens (default: 512)"),
    "micro-batch-tokens": (None, 1, "as in the recipes (default: by device)"),
    "max-samples": (200, 1, "how many questions (default: 200)"),
    "max-new-tokens": (128, 1, "longest reply in tokens (default: 128)"),
    "batch-size": (None, 1, "prompts side by side (default: by device)"),
    "repeats": (3, 1, "measurements of each (default: 3)"),
}


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = CommandParser(__doc__)
    parser.add_path("--train-data", help="measure training on a GSM8K- or Tulu-like dataset: Hub id, folder, file")
    parser.add_argument("--arch", choices=["toy", "gpt2-124m"], default="toy", help="random weights (default: toy)")
    parser.add_path("--tokenizer", help="Hub id or folder (default: for toy a BPE of the rows, else GPT-2's)")
    parser.add_path("--model-path", help="measure the evaluation of this model")
    parser.add_path("--questions", help="questions for it: a GSM8K-like dataset with a test split")
    for name, (default, least, meaning) in INTEGERS.items():
        parser.add_number(f"--{name}", least, default=default, help=meaning)
    parser.add_argument("--device", choices=["cpu", "cuda"], help="(default: a GPU where there is one)")
    parser.add_output_path("write all figures to this JSON file")
    args = parser.parse(argv)
    if not args.train_data and not args.model_path:
        raise InputError("give --train-data to measure training, --model-path to measure evaluation, or both")
    if bool(args.model_path) != bool(args.questions):
        raise InputError("--model-path and --questions belong together; give both")
    return args


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    say("Loading torch and transformers ...")
    import torch

    from domain_tokens.models.device import device_name
    from domain_tokens.runs.files import without_home, write_json
    from domain_tokens.runs.folders import output_file
    from domain_tokens.runs.provenance import environment

    if args.device == "cuda" and not torch.cuda.is_available():
        raise InputError("--device is cuda, but there is no GPU here that torch can use; leave it out or give cpu")
    output = output_file(args.output_path, "arguments", args.overwrite) if args.output_path else None
    device = torch.device(args.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    arguments = {name: without_home(value) if isinstance(value, str) else value for name, value in vars(args).items()}
    figures = {"arguments": arguments, "environment": environment(device_name(device))}
    if args.train_data:
        figures["training"] = measure_training(args, device)
    if args.model_path:
        figures["evaluation"] = measure_evaluation(args, device)
    say(json.dumps(figures))
    if output:
        write_json(output, figures)
        say(f"wrote {output}")
    measured = {name: figures[name] for name in ("training", "evaluation") if name in figures}
    if wrong := [name for name, part in measured.items() if not part["agree"]]:
        raise RunError(f"the two sides of {' and '.join(wrong)} do not agree, so their speeds cannot be compared")


def measure_training(args: argparse.Namespace, device) -> dict:
    import torch

    from domain_tokens.models.folder import fuse_activations

    checkpoint, rows = training_inputs(args)
    on_gpu = device.type == "cuda"
    start = {name: tensor.clone() for name, tensor in checkpoint.model.state_dict().items()}
    ours = dataclasses.replace(checkpoint, model=copy.deepcopy(checkpoint.model))
    fuse_activations(ours.model)
    sides = {"reference": (checkpoint, reference_trainer), "ours": (ours, our_trainer)}
    seconds, losses, memory = ({name: [] for name in sides} for _ in range(3))
    for repeat in range(args.repeats + 1):  # the first one warms up and does not count
        for name, (side, make) in sides.items():
            side.model.load_state_dict(start)
            with tempfile.TemporaryDirectory() as folder:
                trainer = make(side, rows, args, {**SETTINGS, "output_dir": folder, "use_cpu": not on_gpu})
                if on_gpu:
                    torch.cuda.reset_peak_memory_stats()
                began = now(on_gpu)
                loss = trainer.train().training_loss
                elapsed = now(on_gpu) - began
            side.model.to("cpu")  # otherwise it counts in the other side's peak memory
            if repeat:
                seconds[name].append(elapsed)
                losses[name].append(loss)
                memory[name].append(torch.cuda.max_memory_allocated() if on_gpu else None)
                say(f"training, {name}, {repeat} of {args.repeats}: {elapsed:.1f} s")
    tokens = len(rows.ids)
    fill = tokens / (len(rows) * args.max_length)
    median = {name: statistics.median(values) for name, values in seconds.items()}
    loss = {name: statistics.median(values) for name, values in losses.items()}
    speed = {name: tokens / median[name] for name in sides}
    peak = next((flops for card, flops in PEAK_FLOPS.items() if on_gpu and card in torch.cuda.get_device_name()), None)
    mfu = {name: training_flops(checkpoint.model, rows) / median[name] / peak for name in sides} if peak else None
    table = [("training", "real tokens/s", "loss", "peak GPU memory", "MFU")]
    for name in sides:
        peak_memory = f"{max(memory[name]) / 1e9:.1f} GB" if on_gpu else "-"
        table.append(
            (name, f"{speed[name]:,.0f}", f"{loss[name]:.5f}", peak_memory, f"{mfu[name]:.1%}" if mfu else "-")
        )
    ratio = speed["ours"] / speed["reference"]
    say(f"\n{aligned(table, left=(0,))}\n")
    say(f"{len(rows)} rows of {tokens:,} tokens, {fill:.1%} of the reference's positions: 1 / fill is {1 / fill:.2f}")
    say(f"ratio {ratio:.2f}\n")
    tolerance = LOSS_TOLERANCE["cuda" if on_gpu else "cpu"] * loss["reference"]
    return {
        "tokens_per_second": speed, "ratio": ratio, "fill": fill, "loss": loss, "seconds": seconds,
        "peak_memory": memory, "mfu": mfu, "agree": abs(loss["ours"] - loss["reference"]) <= tolerance,
    }  # fmt: skip


def now(on_gpu: bool) -> float:
    """Return the time in seconds after everything that the GPU was given is done."""
    import torch

    if on_gpu:
        torch.cuda.synchronize()
    return time.perf_counter()


def training_inputs(args: argparse.Namespace):
    """Return a model with random weights, and the rows."""
    from transformers import GPT2Config, GPT2LMHeadModel

    from domain_tokens import toy
    from domain_tokens.data.conversations import UnusableRow, conversation_of_any
    from domain_tokens.data.prepared import prepare
    from domain_tokens.data.readers import open_rows
    from domain_tokens.models.folder import OpenModel
    from domain_tokens.models.sources import GPT2_HUB_ID, load_tokenizer

    split = open_rows(args.train_data, None, "train")
    conversations = []
    for i in range(len(split)):
        with suppress(UnusableRow):
            conversations.append(conversation_of_any(split.read(i)))
        if len(conversations) == args.rows:
            break
    else:
        raise InputError(f"{args.train_data} has {len(conversations)} usable rows, expected {args.rows}; give --rows")
    if args.tokenizer or args.arch != "toy":
        tokenizer = load_tokenizer(args.tokenizer or GPT2_HUB_ID)
        tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    else:
        texts = [message["content"] for conversation in conversations for message in conversation]
        tokenizer = toy.train_tokenizer(texts, TOY_VOCABULARY)
    if args.arch == "toy":
        model = toy.model(len(tokenizer), tokenizer.eos_token_id)
    else:
        model = GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer), resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0))
    if args.max_length > model.config.n_positions:
        raise InputError(f"--max-length is {args.max_length}, expected at most the model's {model.config.n_positions}")
    model.loss_type = "ForCausalLM"
    rows = prepare(iter(conversations), tokenizer, args.max_length, "assistant", CONDITIONS["baseline"])
    return OpenModel("benchmark", model, tokenizer, "baseline", [{"stage": "start"}], "", ""), rows


def reference_trainer(checkpoint, rows, args: argparse.Namespace, settings: dict):
    """Return a stock Trainer: rows padded to max_length, 8 at a time as by default, 32 a step."""
    from transformers import DataCollatorForSeq2Seq, PrinterCallback, Trainer, TrainingArguments

    arguments = TrainingArguments(
        **settings, seed=42, gradient_accumulation_steps=STEP_ROWS // 8, report_to="none", disable_tqdm=True,
        remove_unused_columns=False, bf16=not settings["use_cpu"], dataloader_pin_memory=not settings["use_cpu"],
    )  # fmt: skip
    collate = DataCollatorForSeq2Seq(checkpoint.tokenizer, padding="max_length", max_length=args.max_length)
    lists = [{name: values.tolist() for name, values in rows[i].items()} for i in range(len(rows))]
    trainer = Trainer(checkpoint.model, arguments, collate, train_dataset=lists)
    trainer.remove_callback(PrinterCallback)
    return trainer


def our_trainer(checkpoint, rows, args: argparse.Namespace, settings: dict):
    from domain_tokens.runs.config_schema import DataConfig, SftConfig
    from domain_tokens.training.callbacks import TerminalCallback
    from domain_tokens.training.trainer_setup import make_trainer

    data = DataConfig(dataset="benchmark", subset=None, max_length=args.max_length, train_samples=None, val_samples=0)
    folder = Path(settings.pop("output_dir"))
    recipe = SftConfig(
        seed=42, global_batch_size=STEP_ROWS, data=data, micro_batch_tokens=args.micro_batch_tokens, trainer=settings
    )
    no_rows = dataclasses.replace(rows, ids=rows.ids[:0], trained=rows.trained[:0], offsets=rows.offsets[:1])
    trainer = make_trainer(checkpoint, rows, no_rows, recipe, folder)
    trainer.remove_callback(TerminalCallback)
    return trainer


def training_flops(model, rows) -> float:
    """Return the floating-point operations of forward and backward over all rows.

    6 for each weight and token (for the output layer: each trained token), and 6 for each layer, column and pair of
    positions of a row: half of what attention without causality needs. Chowdhery et al., PaLM (2022), appendix B.
    """
    config, head = model.config, model.get_output_embeddings().weight.numel()
    body = sum(p.numel() for name, p in model.named_parameters() if not name.endswith(("wte.weight", "wpe.weight")))
    pairs = sum((rows.offsets[1:] - rows.offsets[:-1]).astype(float) ** 2)
    attention = 6 * config.num_hidden_layers * config.hidden_size * pairs
    return 6 * body * len(rows.ids) + 6 * head * rows.trained_tokens + attention


def measure_evaluation(args: argparse.Namespace, device) -> dict:
    from transformers import AutoModelForCausalLM

    from domain_tokens.data.readers import open_rows
    from domain_tokens.evaluation.questions import gsm8k_questions
    from domain_tokens.evaluation.replies import check_room, reply_to, tokenize_prompts
    from domain_tokens.models.device import place
    from domain_tokens.models.folder import open_model
    from domain_tokens.prompt import question_conversation

    checkpoint = open_model(args.model_path, None)
    stock = AutoModelForCausalLM.from_pretrained(
        args.model_path, dtype=checkpoint.model.dtype, use_safetensors=True, trust_remote_code=False
    )
    stock.generation_config = checkpoint.model.generation_config
    reference = dataclasses.replace(checkpoint, model=stock.eval())
    place(checkpoint, device)
    place(reference, device)
    questions, _ = gsm8k_questions(open_rows(args.questions, None, "test"), checkpoint.tokenizer)
    conversations = [question_conversation(asked.text) for asked in questions[: args.max_samples]]

    check_room(checkpoint, tokenize_prompts(checkpoint, conversations), args.max_new_tokens)

    def ours():
        prompts = tokenize_prompts(checkpoint, conversations)
        found = dict(reply_to(checkpoint, prompts, args.max_new_tokens, args.batch_size))
        return [found[i].text for i in range(len(conversations))]

    sides = {"reference": lambda: reference_replies(reference, conversations, args.max_new_tokens), "ours": ours}
    seconds, replies = {name: [] for name in sides}, {}
    for repeat in range(1, args.repeats + 1):
        for name, generate in sides.items():
            began = time.perf_counter()
            replies[name] = generate()
            seconds[name].append(time.perf_counter() - began)
            say(f"evaluation, {name}, {repeat} of {args.repeats}: {seconds[name][-1]:.1f} s")
    same = sum(ours == reference for ours, reference in zip(replies["ours"], replies["reference"], strict=True))
    median = {name: statistics.median(values) for name, values in seconds.items()}
    ratio, total = median["reference"] / median["ours"], len(conversations)
    table = [("evaluation", "questions", "seconds"), *((name, str(total), f"{median[name]:.2f}") for name in sides)]
    say(f"\n{aligned(table, left=(0,))}\n\n{same} of {total} replies are the same\nratio {ratio:.2f}\n")
    return {"seconds": seconds, "ratio": ratio, "same_replies": same, "agree": same == total}


def reference_replies(checkpoint, conversations, max_new_tokens: int) -> list[str]:
    """Reply with the library's generate: 32 prompts at a time in file order, each until the longest reply is done."""
    import torch

    from domain_tokens.evaluation.replies import cut_to_reply
    from domain_tokens.models.decoding import left_padded
    from domain_tokens.prompt import STOP_STRING, prompt_text

    tokenizer, model = checkpoint.tokenizer, checkpoint.model
    replies = []
    for first in range(0, len(conversations), 32):
        texts = [prompt_text(messages, tokenizer.eos_token) for messages in conversations[first : first + 32]]
        prompts = tokenizer(texts, add_special_tokens=False)["input_ids"]
        input_ids, attention_mask = left_padded(prompts, tokenizer.pad_token_id, model.device)
        with torch.inference_mode():
            output = model.generate(
                input_ids=input_ids, attention_mask=attention_mask, max_new_tokens=max_new_tokens, do_sample=False,
                stop_strings=STOP_STRING, tokenizer=tokenizer,
            )  # fmt: skip
        replies += [cut_to_reply(checkpoint, ids).text for ids in output[:, input_ids.shape[1] :].tolist()]
    return replies


if __name__ == "__main__":
    run(main)
