"""What a stage says of itself: on the terminal before and after training, and in its results file."""

import itertools
from typing import Any

import numpy as np

from domain_tokens.conditions import Condition
from domain_tokens.data.prepared import Prepared
from domain_tokens.data.splits import contaminated_text, unusable_text
from domain_tokens.models.device import device_name, peak_memory
from domain_tokens.models.folder import OpenModel
from domain_tokens.prompt import IGNORED_LABEL
from domain_tokens.runs.config import LoadedConfig
from domain_tokens.runs.files import shown_source
from domain_tokens.runs.provenance import environment
from domain_tokens.runs.results_schema import TrainingResults
from domain_tokens.runs.terminal import shown_text
from domain_tokens.training.trainer import SftTrainer, check_finite

# What is measured on the validation rows, by the name of its curve
_VALIDATED = {
    "validation": "eval_loss", "number_bits": "eval_number_bits_per_byte", "word_bits": "eval_word_bits_per_byte",
}  # fmt: skip


def describe_rows(tokenizer, train: Prepared, val: Prepared, left_out: dict[str, Any], condition: Condition) -> str:
    """Return what will be trained on: counts, and the first row with its trained part between « and »."""
    lines = []
    for name, prepared in (("training", train), ("validation", val)):
        counts = ", ".join(f"{value:,} {key.replace('_', ' ')}" for key, value in prepared.counts().items())
        lines.append(f"{name} rows: {counts}")
    if left_out["unusable"]:
        lines.append(f"unusable rows left out: {unusable_text(left_out['unusable'])}")
    if left_out["contaminated"] is not None:
        lines.append(f"contaminated rows left out: {contaminated_text(left_out['contaminated'])}")
    if condition.injects and not train.injected:
        lines.append("note: no fact stands in these rows, so this stage trains every condition alike")
    return "\n".join([*lines, "first training row, «trained part»:", _marked_text(tokenizer, train[0]), ""])


def _marked_text(tokenizer, row: dict[str, np.ndarray]) -> str:
    ids, trained = row["input_ids"], row["labels"] != IGNORED_LABEL
    borders = [0, *(np.flatnonzero(np.diff(trained)) + 1), len(ids)]
    texts = [(tokenizer.decode(ids[a:b].tolist()), trained[a]) for a, b in itertools.pairwise(borders)]
    return shown_text("".join(f"«{text}»" if is_trained else text for text, is_trained in texts))


def training_results(
    trainer: SftTrainer, checkpoint: OpenModel, stage: str, loaded: LoadedConfig, inject_facts: bool, rows: dict
) -> TrainingResults:
    """Return what the results file holds, but for the digest of the weights. rows: what was left out, and digests.

    Every process must call this: a validation loss that is still to be measured needs all of them. Raises RunError for
    a loss that is not finite.
    """
    train, val = trainer.train_dataset, trainer.eval_dataset
    runtime = trainer.totals.runtime()
    train_loss, validated = _final_losses(trainer)
    return {
        "stage": stage,
        "condition": checkpoint.condition,
        "seed": loaded.config.seed,
        "model_path": checkpoint.path,
        "start_weights": checkpoint.weights,
        "start_architecture": checkpoint.architecture,
        "dataset": shown_source(loaded.config.data.dataset),
        "train_loss": train_loss,
        **{key: validated.get(key) for key in _VALIDATED.values()},
        "loss_curves": {
            name: [[log["step"], log[key]] for log in trainer.state.log_history if key in log]
            for name, key in {"train": "loss", **_VALIDATED}.items()
        },
        "train_runtime": runtime,
        "peak_memory": peak_memory(trainer.args.device),
        "mixed_precision": trainer.args.mixed_precision,
        "packed": trainer.padding_reason is None,
        "steps": trainer.state.global_step,
        "total_train_samples": len(train),
        "total_val_samples": len(val) if val is not None else 0,
        "inject_mul_tokens": inject_facts,
        "injected_mul_tokens": train.injected.total(),
        "injected_by_fact": dict(sorted(train.injected.items())),
        "tokens_trained": int(trainer.totals.tokens),
        "rows": {"train": train.counts(), "val": val.counts() if val is not None else None} | rows,
        "config": loaded.as_dict(),
        "overridden": sorted(loaded.overridden),
        "environment": environment(device_name(trainer.args.device)),
    }


def _final_losses(trainer: SftTrainer) -> tuple[float, dict[str, float]]:
    """Return the mean training loss of the run, and the validation of the weights that will be saved, if any."""
    step = trainer.state.global_step
    train_loss, validated = float(trainer.totals.loss) / max(1, step), {}
    if trainer.eval_dataset is not None:
        # The Trainer logs a summary of the run after an evaluation of its last step.
        last = [log for log in trainer.state.log_history[-2:] if log["step"] == step and "eval_loss" in log]
        if not last or trainer.args.load_best_model_at_end:  # then other weights are saved than those of the last step
            last = [trainer.evaluate()]
        validated = last[0]
        check_finite(validated["eval_loss"], step)
    check_finite(train_loss, step)
    return train_loss, validated


def lineage_entry(results: dict[str, Any]) -> dict[str, Any]:
    """Return what a model folder's record says of this stage."""
    names = ("stage", "model_path", "start_weights", "dataset", "seed", "inject_mul_tokens", "injected_mul_tokens")
    commit = {name: results["environment"][name] for name in ("commit", "dirty")}
    return {name: results[name] for name in names} | commit


def training_summary(results: dict[str, Any]) -> str:
    validation = "none" if results["eval_loss"] is None else f"{results['eval_loss']:.4f}"
    return (
        f"{results['steps']} steps over {results['total_train_samples']:,} rows in {results['train_runtime']:.0f} s: "
        f"training loss {results['train_loss']:.4f}, validation loss {validation}"
    )
