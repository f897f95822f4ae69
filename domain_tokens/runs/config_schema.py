"""The keys of every YAML config: type, allowed values, unit. A field's description completes "expected …".

Checks are strict: no text for a number, no unknown key. A default stands only for a key that older files lack.
"""

import math
import re
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    PlainValidator,
    ValidationInfo,
    create_model,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from domain_tokens.conditions import CONDITIONS
from domain_tokens.prompt import LOSS_ON
from domain_tokens.runs.command_line import SEED_RANGE
from domain_tokens.runs.errors import InputError
from domain_tokens.runs.files import user_path, without_home
from domain_tokens.runs.names import INITS, SFT_STAGES
from domain_tokens.runs.trainer_fields import checked_trainer

STAGES = ("pretrained", *SFT_STAGES)
_HUB_NAME = re.compile(r"\A(?!.*(?:--|\.\.|\.git\Z))[A-Za-z0-9_](?:[\w.-]{0,94}[A-Za-z0-9_])?\Z")


def _check_path(path: str) -> str:
    if not path:
        raise PydanticCustomError("path", "a path or a Hub id")
    return user_path(path)


def _check_model_name(name: str) -> str:
    if not _HUB_NAME.match(name) or name in (*STAGES, *CONDITIONS):
        raise PydanticCustomError("name", "a folder's name that is not a group's")
    return name


def _check_question(text: str) -> str:
    if "{a}" not in text or "{b}" not in text:
        raise PydanticCustomError("question", "a question with {a} and {b}")
    return text


def _check_operands(ends: Any) -> list[int]:
    is_pair = isinstance(ends, list) and len(ends) == 2 and all(type(end) is int for end in ends)
    if not is_pair or not 0 <= ends[0] <= ends[1] < 1000:
        raise PydanticCustomError("operands", "the smallest and the largest operand, such as [1, 9], from 0 to 999")
    return ends


Operands = Annotated[list[int], PlainValidator(_check_operands)]
Seed = Annotated[int, Field(ge=0, lt=SEED_RANGE.stop, description=f"0 to {SEED_RANGE[-1]}")]
# A recipe is saved and published, and the home folder tells a name.
UserPath = Annotated[str, AfterValidator(_check_path), PlainSerializer(without_home)]


class Recipe(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class DataConfig(Recipe):
    dataset: UserPath  # a Hub id, a folder with train/test files, or one file
    subset: str | None  # the dataset's configuration on the Hub, e.g. "main"
    max_length: int = Field(ge=2, description="at least 2 tokens")  # longer rows are cut at the end
    train_samples: int | None = Field(gt=0, description="at least 1 row, or null for all")
    val_samples: int = Field(ge=0, description="0 rows or more")  # from the training split, never trained on
    loss_on: Literal[*LOSS_ON] = "assistant"
    # Rows that share words with a test question of this dataset are dropped.
    decontaminate_against: UserPath | None = Field(None, description="a GSM8K dataset's path or Hub id, or null")


class SftConfig(Recipe):
    """One supervised fine-tuning stage."""

    seed: Seed
    # What an optimizer step sees, over all processes and micro-batches.
    global_batch_size: int = Field(ge=1, le=2**20, description=f"1 to {2**20} rows")
    data: DataConfig
    # Positions, padding included, that go through at a time; null: by device.
    micro_batch_tokens: int | None = Field(None, gt=0, description="at least 1, or null")
    # Prompts of validation rows that are asked at every validation.
    eval_samples: int = Field(0, ge=0, le=64, description="0 to 64 prompts")
    # Fields of transformers.TrainingArguments under their own names.
    trainer: Annotated[dict[str, Any], PlainValidator(checked_trainer)] = {}


class EvalConfig(Recipe):
    """What every evaluation has."""

    seed: Seed
    # Prompts generated side by side; null: as many as the device has room for.
    batch_size: int | None = Field(gt=0, description="at least 1, or null")
    max_new_tokens: int = Field(gt=0, description="at least 1")
    dtype: Literal["float32", "bfloat16", "float16"]


class Gsm8kEvalConfig(EvalConfig):
    """One evaluation on a dataset's test split."""

    dataset: UserPath
    subset: str | None
    max_samples: int | None = Field(gt=0, description="at least 1, or null for every question")


class ProbeCategory(Recipe):
    """Arithmetic questions about pairs of operands."""

    text: Annotated[str, AfterValidator(_check_question)]
    sign: Literal["x", "+"]  # x: the answer is a·b; +: it is a+b
    a: Operands
    b: Operands
    count: int | None  # pairs drawn with the seed; null: every pair

    @field_validator("count")
    @classmethod
    def _check_count(cls, count: int | None, others: ValidationInfo) -> int | None:
        pairs = math.prod(ends[1] - ends[0] + 1 for name in "ab" if (ends := others.data.get(name)))
        if count is not None and not 0 < count <= pairs:
            raise PydanticCustomError("count", f"1 to {pairs} pairs, or null for all of them")
        return count


class ProbesEvalConfig(EvalConfig):
    """The evaluation with arithmetic probes."""

    categories: dict[str, ProbeCategory] = Field(min_length=1, description="at least one category")


class StageConfig(Recipe):
    """One stage of an experiment: its own config file, its data, and `key=value` overrides."""

    config: UserPath
    dataset: UserPath | None = None  # null: the config's own; with base.source toy, the generated rows
    overrides: list[str] = Field([], description="a list of texts")


StartModels = create_model("StartModels", __base__=Recipe, **dict.fromkeys(CONDITIONS, (UserPath | None, None)))


class BaseConfig(Recipe):
    """The start models of an experiment, by condition. Conditions may share one."""

    source: UserPath | None  # what missing ones are made of: "toy", or prepare_base.py's --source; null: nothing
    init: Literal[*INITS] | None = Field(None, description=f"{', '.join(INITS)}, or null")  # prepare_base.py's --init
    layers: int | None = Field(None, gt=0, description="at least 1 layer, or null")  # of the toy model
    models: StartModels  # folders


class ToyData(Recipe):
    """The rows of the toy world; null: make_toy_data.py's own number."""

    chats: int | None = Field(None, gt=0, description="at least 1 row, or null")
    problems: int | None = Field(None, gt=0, description="at least 1 row, or null")
    test_problems: int | None = Field(None, gt=0, description="at least 1 row, or null")
    two_digit: float | None = Field(None, ge=0, le=1, description="a share from 0 to 1, or null")


class ExperimentConfig(Recipe):
    """Every condition through all stages. Folders below output_root are named as in the README."""

    output_root: UserPath
    # Two or more, in the order of tables, the reference first; null: those that have a start model.
    conditions: list[Literal[*CONDITIONS]] | None = Field(None, min_length=1, description="a list of names, or null")
    seeds: list[Seed] | None = Field(None, min_length=1, description="a list of seeds, or null")  # --seeds in its place
    base: BaseConfig
    toy_data: ToyData = ToyData()  # with base.source: toy
    sft_tulu: StageConfig | None = None  # null: not run
    sft_gsm8k: StageConfig
    eval_gsm8k: StageConfig
    eval_steps: StageConfig | None = None  # null: not run
    eval_probes: StageConfig | None = None  # null: not run

    @property
    def start_models(self) -> dict[str, str]:
        """The start model's folder of each condition that is run."""
        models = {name: folder for name, folder in self.base.models.model_dump().items() if folder is not None}
        return models if self.conditions is None else {name: models[name] for name in self.conditions}

    @model_validator(mode="after")
    def _check_conditions(self) -> "ExperimentConfig":
        if self.base.layers is not None and self.base.source != "toy":
            raise InputError("base.layers is for base.source toy; another source has its own layers")
        if "," in self.output_root:
            raise InputError(f"output_root is {self.output_root}, expected a path without a comma, which parts folders")
        for name in self.conditions or ():
            if getattr(self.base.models, name) is None:
                raise InputError(f"base.models has no start model of {name}, which conditions names; add it")
        if len(self.start_models) < max(2, len(self.conditions or ())):
            named = ", ".join(self.conditions or self.start_models) or "none"
            raise InputError(f"conditions are {named}; give two or more, each once")
        return self


class KnownModel(Recipe):
    """A model that the experiment makes: its repository's name on the Hub, and the groups it can be asked for by."""

    repo: str = Field(pattern=_HUB_NAME, description="a repository's name without its owner")
    stage: Literal[*STAGES]
    condition: Literal[*CONDITIONS]


class RegistryConfig(Recipe):
    """The known models by the name of their folder below the output root."""

    owner: str = Field(pattern=_HUB_NAME, description="the name of a Hub user or organisation")
    models: dict[Annotated[str, AfterValidator(_check_model_name)], KnownModel] = Field(
        min_length=1, description="at least one model"
    )

    def repo_id(self, name: str) -> str:
        return f"{self.owner}/{self.models[name].repo}"
