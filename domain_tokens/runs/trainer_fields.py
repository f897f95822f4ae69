"""Which fields of transformers.TrainingArguments a recipe may set, and their types."""

import dataclasses
import typing
from typing import Any

# TrainingArguments that the run itself decides, and where: a second way to set them would contradict the first.
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
    "report_to": "the stage, which writes TensorBoard logs",
    "push_to_hub": "uploading the finished model",
    "hub_token": "the environment",
}


def trainer_types() -> dict[str, Any]:
    """Return the type of each field. Imports transformers, which takes seconds and only the SFT stages need."""
    from transformers import TrainingArguments

    hints = typing.get_type_hints(TrainingArguments)
    return {item.name: hints[item.name] for item in dataclasses.fields(TrainingArguments) if item.init}
