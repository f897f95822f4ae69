"""The schemas of all config files. A field's description is what its error message expects.

Every value stands in the YAML; there is no second copy of a recipe here.
"""

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from domain_tokens.conditions import CONDITION_NAMES, CONDITIONS
from domain_tokens.prompt import LOSS_ON
from domain_tokens.runs.command import SEED_RANGE

STAGES = ("pretrained", "sft_tulu", "sft_gsm8k")
# What the Hub allows as the name of an owner or a repository, which is safe as a folder's name too.
_HUB_NAME = re.compile(r"(?!.*(?:--|\.\.|\.git\Z))[A-Za-z0-9_](?:[\w.-]{0,94}[A-Za-z0-9_])?")


def _checked(is_good, expected: str) -> Any:
    """Return the type of a text that has to satisfy `is_good`."""

    def check(text: str) -> str:
        if not is_good(text):
            raise ValueError(expected)
        return text

    return Annotated[str, AfterValidator(check), Field(description=expected)]


Seed = Annotated[int, Field(ge=0, le=SEED_RANGE[-1], description=f"0 to {SEED_RANGE[-1]}")]
Count = Annotated[int, Field(ge=1, description="at least 1")]
OptionalCount = Annotated[int | None, Field(ge=1, description="at least 1, or null")]
LossOn = Annotated[Literal[LOSS_ON], Field(description=" or ".join(LOSS_ON))]
Dtype = Annotated[Literal["float32", "bfloat16", "float16"], Field(description="float32 or bfloat16 or float16")]


class Recipe(BaseModel):
    """Strict: an unknown key, a wrong type or an infinite number is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class DataConfig(Recipe):
    dataset: str  # a Hub id, a folder with train/test files, or one file
    subset: str | None  # the dataset's configuration on the Hub, e.g. "main"
    max_length: int = Field(ge=2, description="at least 2 tokens")  # longer rows are cut at the end
    train_samples: int | None = Field(ge=1, description="at least 1 row, or null for all")
    val_samples: int = Field(ge=0, description="0 rows or more")  # from the training split, never trained on
    loss_on: LossOn = "assistant"
    # A GSM8K dataset: rows that share words with a test question are dropped.
    decontaminate_against: str | None = Field(
        default=None, min_length=1, description="a GSM8K dataset's path or Hub id, or null"
    )


class SftConfig(Recipe):
    """One supervised fine-tuning stage."""

    seed: Seed
    # Rows an optimizer step sees, over all processes and micro-batches.
    global_batch_size: int = Field(ge=1, le=2**20, description="1 to 1048576 rows")
    data: DataConfig
    micro_batch_tokens: OptionalCount = None  # positions that go through at a time; null: by device
    trainer: dict[str, Any] | None = {}  # fields of transformers.TrainingArguments by their own names


class EvalConfig(Recipe):
    """What every evaluation has."""

    seed: Seed
    batch_size: OptionalCount  # prompts generated side by side; null: as many as the device has room for
    max_new_tokens: Count
    dtype: Dtype


class Gsm8kEvalConfig(EvalConfig):
    """An evaluation on a dataset's test split."""

    dataset: str
    subset: str | None
    max_samples: int | None = Field(ge=1, description="at least 1")  # null asks every question


class StartModels(Recipe):
    """The start models of an experiment."""

    source: str | None  # what missing ones are made of: "toy", or prepare_base.py's --source; null: they must be there
    folder: str  # of each, with {condition} in it


class StageConfig(Recipe):
    """One stage of an experiment: its own config file, its data, and `key=value` overrides."""

    config: str
    dataset: str | None = None  # in place of the config's own
    overrides: list[str] = []


class ExperimentConfig(Recipe):
    """All conditions through all stages. Folders below output_root are named as in the README."""

    output_root: str
    base: StartModels
    sft_tulu: StageConfig
    sft_gsm8k: StageConfig
    eval_gsm8k: StageConfig
    eval_probes: StageConfig


class KnownModel(Recipe):
    """A model that the experiment makes: its repository's name on the Hub, and the groups it can be asked for by."""

    repo: _checked(_HUB_NAME.fullmatch, "a repository's name without its owner")
    stage: _checked(STAGES.__contains__, " or ".join(STAGES))
    condition: _checked(CONDITIONS.__contains__, CONDITION_NAMES)


_Folder = _checked(
    lambda name: _HUB_NAME.fullmatch(name) and name not in (*STAGES, *CONDITIONS),
    "a folder's name that is not a group's",
)


class RegistryConfig(Recipe):
    """The known models by the name of their folder below the output root."""

    owner: _checked(_HUB_NAME.fullmatch, "the name of a Hub user or organisation")
    models: dict[_Folder, KnownModel] = Field(min_length=1, description="at least one model")

    def repo_id(self, name: str) -> str:
        return f"{self.owner}/{self.models[name].repo}"
