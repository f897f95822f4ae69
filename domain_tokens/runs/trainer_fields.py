"""The `trainer:` block of a recipe: which fields of TrainingArguments it may set, and of what types."""

import dataclasses
import types
import typing
from functools import cache
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError

from domain_tokens.runs.errors import InputError, nearest, short_repr

# Fields that the run itself decides, and where: a second way to set them would contradict the first.
OWNED_TRAINER_FIELDS = {
    "output_dir": "--output-dir",
    "seed": "the key seed",
    "data_seed": "the key seed",
    "gradient_accumulation_steps": "global_batch_size and micro_batch_tokens",
    "average_tokens_across_devices": "the stage, whose loss is the mean over a step's tokens",
    "dataloader_drop_last": "the stage, which trains on every row",
    "ignore_data_skip": "--resume, which goes on with the rows that are still to come",
    "save_only_model": "--resume, which needs the optimizer too",
    "auto_find_batch_size": "global_batch_size and micro_batch_tokens",
    "resume_from_checkpoint": "--resume",
    "restore_callback_states_from_checkpoint": "--resume",
    "remove_unused_columns": "the stage's data",
    "train_sampling_strategy": "the key seed, which draws the order of the rows",
    "label_smoothing_factor": "the stage, whose loss is plain cross-entropy",
    "use_liger_kernel": "the stage, which computes its loss itself",
    "fsdp": "accelerate launch --config_file sft/configs/fsdp.yaml",
    "fsdp_config": "accelerate launch --config_file sft/configs/fsdp.yaml",
    "deepspeed": "accelerate launch, which has FSDP for models that need more than one GPU",
    "bf16_full_eval": "bf16, for training and validation alike",
    "fp16_full_eval": "fp16, for training and validation alike",
    "push_to_hub": "uploading the finished model",
    "hub_token": "the environment",
}
# Fields whose values of 0 or less the library takes for something else, or fails on in the middle of training.
_STEPS = "a number of steps above 0, or a share of all steps"
_ABOVE_ZERO = {
    "logging_steps": _STEPS,
    "eval_steps": f"{_STEPS}; or null for logging_steps",
    "save_steps": f"{_STEPS}; save_strategy=no saves nothing in between",
    "save_total_limit": "at least 1 checkpoint, or null to keep all",
}
_PLAIN = {int: "int", float: "float", str: "str", bool: "bool", types.NoneType: "null"}


@cache
def trainer_types() -> dict[str, Any]:
    """The type of every field of TrainingArguments."""
    from transformers import TrainingArguments  # seconds to import, and only the SFT stages need it

    hints = typing.get_type_hints(TrainingArguments)
    return {item.name: hints[item.name] for item in dataclasses.fields(TrainingArguments) if item.init}


def checked_trainer(values: Any) -> dict[str, Any]:
    """Return the block with whole numbers as floats where floats are expected. InputError names the first fault.

    Fields of richer types are left to TrainingArguments.
    """
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise InputError(f"trainer is {short_repr(values)}, expected a block of TrainingArguments fields")
    known = trainer_types()
    for key in values:
        if key in OWNED_TRAINER_FIELDS:
            raise InputError(f"trainer.{key} cannot be set: it is decided by {OWNED_TRAINER_FIELDS[key]}; leave it out")
        if key not in known:
            remedy = nearest(str(key), known) or "; leave it out"
            raise InputError(f"trainer.{key} is no field of TrainingArguments{remedy}")
    checked = {key: _typed(key, value, known[key]) for key, value in values.items()}
    for key, expected in _ABOVE_ZERO.items():
        if (value := checked.get(key)) is not None and value <= 0:
            raise InputError(f"trainer.{key} is {short_repr(values[key])}, expected {expected}")
    return checked


def _typed(key: str, value: Any, expected: Any) -> Any:
    options = typing.get_args(expected) if isinstance(expected, types.UnionType) else (expected,)
    if not all(option in _PLAIN for option in options):
        return value
    try:
        return TypeAdapter(expected, config=ConfigDict(strict=True, allow_inf_nan=False)).validate_python(value)
    except ValidationError as error:
        is_finite = all(part["type"] != "finite_number" for part in error.errors())
        names = " or ".join(_PLAIN[option] for option in options) if is_finite else "a finite number"
        raise InputError(f"trainer.{key} is {short_repr(value)}, expected {names}") from None
