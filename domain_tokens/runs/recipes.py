"""A YAML file and `key=value` overrides to small frozen dataclasses. Strict: nothing is guessed, nothing ignored.

Every value stands in the YAML; there is no second copy of a recipe here. An override names a key in full
(`trainer.learning_rate=1e-4`) or by its last part where that is unambiguous (`learning_rate=1e-4`).
"""

import re
import reprlib
from dataclasses import dataclass, field
from typing import Any

from domain_tokens.conditions import CONDITIONS
from domain_tokens.prompt import LOSS_ON
from domain_tokens.runs.errors import InputError

STAGES = ("pretrained", "sft_tulu", "sft_gsm8k")
DTYPES = ("float32", "bfloat16", "float16")

# What the Hub allows as the name of an owner or a repository, which is safe as a folder's name too.
HUB_NAME = re.compile(r"(?!.*(?:--|\.\.|\.git\Z))[A-Za-z0-9_](?:[\w.-]{0,94}[A-Za-z0-9_])?")


@dataclass(frozen=True)
class DataConfig:
    dataset: str  # a Hub id, a folder with train/test files, or one file
    subset: str | None  # the dataset's configuration on the Hub, e.g. "main"
    max_length: int  # tokens; longer rows are cut at the end
    train_samples: int | None  # rows; null takes all
    val_samples: int  # rows, taken from the training split and never trained on
    loss_on: str = "assistant"
    decontaminate_against: str | None = None  # a GSM8K dataset: rows that share words with a test question are dropped

    def __post_init__(self):
        check_value("data.max_length", self.max_length, self.max_length >= 2, "at least 2 tokens")
        check_value("data.train_samples", self.train_samples, self.train_samples is None or self.train_samples > 0,
               "at least 1 row, or null for all")  # fmt: skip
        check_value("data.decontaminate_against", self.decontaminate_against, self.decontaminate_against != "",
               "a GSM8K dataset's path or Hub id, or null")  # fmt: skip
        check_value("data.val_samples", self.val_samples, self.val_samples >= 0, "0 rows or more")
        check_value("data.loss_on", self.loss_on, self.loss_on in LOSS_ON, " or ".join(LOSS_ON))


@dataclass(frozen=True)
class SftConfig:
    """One supervised fine-tuning stage. `trainer` goes to transformers.TrainingArguments under its own names."""

    seed: int
    global_batch_size: int  # rows an optimizer step sees, over all processes and micro-batches
    data: DataConfig
    micro_batch_tokens: int | None = None  # positions, padding included, that go through at a time; null: by device
    trainer: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self):
        check_value("seed", self.seed, 0 <= self.seed < 2**32, "0 to 4294967295")
        check_value("micro_batch_tokens", self.micro_batch_tokens,
               self.micro_batch_tokens is None or self.micro_batch_tokens > 0, "at least 1, or null")  # fmt: skip
        check_value(
            "global_batch_size", self.global_batch_size, 0 < self.global_batch_size <= 2**20, "1 to 1048576 rows"
        )


@dataclass(frozen=True)
class EvalConfig:
    """What both evaluations have."""

    seed: int
    batch_size: int | None  # prompts generated side by side; null: as many as the device has room for
    max_new_tokens: int
    dtype: str

    def __post_init__(self):
        check_value("seed", self.seed, 0 <= self.seed < 2**32, "0 to 4294967295")
        check_value(
            "batch_size", self.batch_size, self.batch_size is None or self.batch_size > 0, "at least 1, or null"
        )
        check_value("max_new_tokens", self.max_new_tokens, self.max_new_tokens > 0, "at least 1")
        check_value("dtype", self.dtype, self.dtype in DTYPES, " or ".join(DTYPES))


@dataclass(frozen=True)
class Gsm8kEvalConfig(EvalConfig):
    """One evaluation on a dataset's test split."""

    dataset: str
    subset: str | None
    max_samples: int | None  # null asks every question

    def __post_init__(self):
        super().__post_init__()
        check_value("max_samples", self.max_samples, self.max_samples is None or self.max_samples > 0, "at least 1")


@dataclass(frozen=True)
class ProbeCategory:
    """Arithmetic questions about pairs of operands."""

    text: str  # with {a} and {b}
    sign: str  # x: the answer is a·b; +: it is a+b
    a: list[int]  # smallest and largest
    b: list[int]
    count: int | None  # pairs drawn with the seed; null: every pair

    def __post_init__(self):
        check_value("text", self.text, "{a}" in self.text and "{b}" in self.text, "a question with {a} and {b}")
        check_value("sign", self.sign, self.sign in ("x", "+"), "x or +")
        for name, ends in (("a", self.a), ("b", self.b)):
            holds = isinstance(ends, list) and len(ends) == 2 and all(type(end) is int for end in ends)
            holds = holds and 0 <= ends[0] <= ends[1] < 1000
            check_value(name, ends, holds, "the smallest and the largest operand, such as [1, 9], from 0 to 999")
        pairs = (self.a[1] - self.a[0] + 1) * (self.b[1] - self.b[0] + 1)
        is_possible = self.count is None or 0 < self.count <= pairs
        check_value("count", self.count, is_possible, f"1 to {pairs} pairs, or null for all of them")


@dataclass(frozen=True)
class ProbesEvalConfig(EvalConfig):
    """The evaluation with arithmetic probes."""

    categories: dict[str, ProbeCategory]

    def __post_init__(self):
        super().__post_init__()
        check_value("categories", self.categories, self.categories, "at least one category")


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


@dataclass(frozen=True)
class BaseConfig:
    """The start models of an experiment."""

    source: str | None  # what missing ones are made of: "toy", or prepare_base.py's --source; null: they must be there
    baseline: str  # folders
    mul_tokens: str


@dataclass(frozen=True)
class StageConfig:
    """One stage of an experiment: its own config file, its data, and `key=value` overrides."""

    config: str
    dataset: str | None = None  # in place of the config's own
    overrides: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class ExperimentConfig:
    """Both conditions through all stages. Folders below output_root are named as in the README."""

    output_root: str
    base: BaseConfig
    sft_tulu: StageConfig
    sft_gsm8k: StageConfig
    eval_gsm8k: StageConfig
    eval_probes: StageConfig


@dataclass(frozen=True)
class KnownModel:
    """A model that the experiment makes: its repository's name on the Hub, and the groups it can be asked for by."""

    repo: str
    stage: str  # pretrained, sft_tulu or sft_gsm8k
    condition: str

    def __post_init__(self):
        check_value("repo", self.repo, HUB_NAME.fullmatch(self.repo), "a repository's name without its owner")
        check_value("stage", self.stage, self.stage in STAGES, " or ".join(STAGES))
        check_value("condition", self.condition, self.condition in CONDITIONS, " or ".join(CONDITIONS))


@dataclass(frozen=True)
class RegistryConfig:
    """The known models by the name of their folder below the output root."""

    owner: str  # on the Hub
    models: dict[str, KnownModel]

    def __post_init__(self):
        check_value("owner", self.owner, HUB_NAME.fullmatch(self.owner), "the name of a Hub user or organisation")
        check_value("models", self.models, self.models, "at least one model")
        for name in self.models:
            check_value("models", name, HUB_NAME.fullmatch(name) and name not in (*STAGES, *CONDITIONS),
                   "a folder's name that is not a group's")  # fmt: skip

    def repo_id(self, name: str) -> str:
        return f"{self.owner}/{self.models[name].repo}"


_repr = reprlib.Repr()
_repr.maxlevel, _repr.maxstring, _repr.maxother = 3, 200, 200


def short_repr(value: Any) -> str:
    """A value for a message of one readable line."""
    return _repr.repr(value)


def check_value(key: str, value: Any, holds: bool, expected: str) -> None:
    if not holds:
        raise InputError(f"{key} is {short_repr(value)}, expected {expected}")
