"""A YAML file and `key=value` overrides to small frozen dataclasses. Strict: nothing is guessed, nothing ignored.

Every value stands in the YAML; there is no second copy of a recipe here. An override names a key in full
(`trainer.learning_rate=1e-4`) or by its last part where that is unambiguous (`learning_rate=1e-4`).
"""

import dataclasses
import math
import re
import reprlib
import sys
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from domain_tokens.errors import InputError, nearest
from domain_tokens.prompt import LOSS_ON
from domain_tokens.results import shown_path, without_home

CONDITIONS = ("baseline", "mul_tokens")
STAGES = ("pretrained", "sft_tulu", "sft_gsm8k")
DTYPES = ("float32", "bfloat16", "float16")


# What the Hub allows as the name of an owner or a repository, which is safe as a folder's name too.
_NAME = re.compile(r"(?!.*(?:--|\.\.|\.git\Z))[A-Za-z0-9_](?:[\w.-]{0,94}[A-Za-z0-9_])?")


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
        _check("data.max_length", self.max_length, self.max_length >= 2, "at least 2 tokens")
        _check("data.train_samples", self.train_samples, self.train_samples is None or self.train_samples > 0,
               "at least 1 row, or null for all")  # fmt: skip
        _check("data.decontaminate_against", self.decontaminate_against, self.decontaminate_against != "",
               "a GSM8K dataset's path or Hub id, or null")  # fmt: skip
        _check("data.val_samples", self.val_samples, self.val_samples >= 0, "0 rows or more")
        _check("data.loss_on", self.loss_on, self.loss_on in LOSS_ON, " or ".join(LOSS_ON))


@dataclass(frozen=True)
class SftConfig:
    """One supervised fine-tuning stage. `trainer` goes to transformers.TrainingArguments under its own names."""

    seed: int
    global_batch_size: int  # rows an optimizer step sees, over all processes and micro-batches
    data: DataConfig
    micro_batch_tokens: int | None = None  # positions, padding included, that go through at a time; null: by device
    trainer: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self):
        _check("seed", self.seed, 0 <= self.seed < 2**32, "0 to 4294967295")
        _check("micro_batch_tokens", self.micro_batch_tokens,
               self.micro_batch_tokens is None or self.micro_batch_tokens > 0, "at least 1, or null")  # fmt: skip
        _check("global_batch_size", self.global_batch_size, 0 < self.global_batch_size <= 2**20, "1 to 1048576 rows")


@dataclass(frozen=True)
class EvalConfig:
    """One evaluation: the probes, which are generated from the seed."""

    seed: int
    batch_size: int | None  # prompts generated side by side; null: as many as the device has room for
    max_new_tokens: int
    dtype: str

    def __post_init__(self):
        _check("seed", self.seed, 0 <= self.seed < 2**32, "0 to 4294967295")
        _check("batch_size", self.batch_size, self.batch_size is None or self.batch_size > 0, "at least 1, or null")
        _check("max_new_tokens", self.max_new_tokens, self.max_new_tokens > 0, "at least 1")
        _check("dtype", self.dtype, self.dtype in DTYPES, " or ".join(DTYPES))


@dataclass(frozen=True)
class Gsm8kEvalConfig(EvalConfig):
    """One evaluation on a dataset's test split."""

    dataset: str
    subset: str | None
    max_samples: int | None  # null asks every question

    def __post_init__(self):
        super().__post_init__()
        _check("max_samples", self.max_samples, self.max_samples is None or self.max_samples > 0, "at least 1")


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
        _check("repo", self.repo, _NAME.fullmatch(self.repo), "a repository's name without its owner")
        _check("stage", self.stage, self.stage in STAGES, " or ".join(STAGES))
        _check("condition", self.condition, self.condition in CONDITIONS, " or ".join(CONDITIONS))


@dataclass(frozen=True)
class RegistryConfig:
    """The known models by the name of their folder below the output root."""

    owner: str  # on the Hub
    models: dict[str, KnownModel]

    def __post_init__(self):
        _check("owner", self.owner, _NAME.fullmatch(self.owner), "the name of a Hub user or organisation")
        _check("models", self.models, self.models, "at least one model")
        for name in self.models:
            _check("models", name, _NAME.fullmatch(name) and name not in (*STAGES, *CONDITIONS),
                   "a folder's name that is not a group's")  # fmt: skip

    def repo_id(self, name: str) -> str:
        return f"{self.owner}/{self.models[name].repo}"


@dataclass(frozen=True)
class Loaded:
    """A config, where it came from, and which dotted keys were overridden on the command line."""

    config: Any
    path: str
    overridden: frozenset[str]

    def as_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self.config)

    def as_yaml(self) -> str:
        """The resolved config as YAML that loads again, each overridden value marked."""
        lines = [f"# resolved from {shown_path(self.path)}"]
        for key, value in self.as_dict().items():
            if isinstance(value, dict):
                lines.append(f"{key}:" if value else f"{key}: {{}}")
                lines += [self._line(f"{key}.{name}", name, inner, "  ") for name, inner in value.items()]
            else:
                lines.append(self._line(key, key, value, ""))
        return "\n".join(lines) + "\n"

    def _line(self, dotted: str, name: str, value: Any, indent: str) -> str:
        dumped = yaml.safe_dump(value, default_flow_style=True, width=10**6).removesuffix("...\n").strip()
        return f"{indent}{name}: {dumped}" + ("  # override" if dotted in self.overridden else "")


def load(path: str | Path, kind: type, overrides: list[str] = (), flags: dict[str, Any] | None = None) -> Loaded:
    """Read a YAML file, apply `key=value` overrides and flags (dotted key to value, None = not given), check all."""
    values = _read_yaml(Path(path))
    known = _known_keys(kind)
    overridden = {}
    for override in overrides:
        key, separator, text = override.partition("=")
        if not separator or not key:
            raise InputError(f"override {_short(override)} is not key=value, expected something like seed=16")
        try:
            overridden[_full_key(key, known)] = _parse(text)
        except yaml.YAMLError:
            raise InputError(
                f"override {_short(override)}: {_short(text)} is not a YAML value; put it into quotes"
            ) from None
    overridden |= {key: value for key, value in (flags or {}).items() if value is not None}
    for key, value in overridden.items():
        _set(values, key, value)
    for block in (values, values.get("data")):  # a recipe is saved and published, and the home folder tells a name
        for key in ("dataset", "decontaminate_against"):
            if isinstance(block, dict) and isinstance(block.get(key), str):
                block[key] = without_home(block[key])
    config = _build(kind, values, str(path), "")
    return Loaded(config, str(path), frozenset(overridden))


_repr = reprlib.Repr()
_repr.maxlevel, _repr.maxstring, _repr.maxother = 3, 200, 200


def _short(value: Any) -> str:
    """A value for a message of one readable line."""
    return _repr.repr(value)


class _Loader(yaml.SafeLoader):
    """YAML 1.1 reads 2e-5 as text and `no` as false, and takes the last of two equal keys. A recipe means otherwise."""

    yaml_implicit_resolvers: typing.ClassVar = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:bool"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def compose_node(self, parent, index):
        """No aliases: with a few of them a text stands for more than fits into memory, or for what holds itself."""
        if self.check_event(yaml.events.AliasEvent):
            alias = self.peek_event()
            raise yaml.composer.ComposerError(
                None, None, f"alias *{alias.anchor}: write its value out", alias.start_mark
            )
        return super().compose_node(parent, index)

    def construct_mapping(self, node, deep=False):
        keys = [self.construct_object(key) for key, _ in node.value]
        if repeated := {str(key) for key in keys if keys.count(key) > 1}:
            raise yaml.constructor.ConstructorError(None, None, f"key given twice: {', '.join(sorted(repeated))}")
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)[eE][-+]?[0-9]+$"),
    list("-+.0123456789"),
)


def _parse(text: str) -> Any:
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError:
        raise
    except Exception as error:  # dates and numbers that are none, tags on the wrong thing, nesting without end
        raise yaml.YAMLError(str(error)) from error


def _read_yaml(path: Path) -> dict[str, Any]:
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise InputError(f"config {path} {what}; expected a YAML file such as those in the configs folders")
    try:
        values = _parse(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"config {path} is not readable YAML: {error}; mend it") from None
    if not isinstance(values, dict):
        found = "empty" if values is None else f"a {type(values).__name__}"
        raise InputError(f"config {path} is {found}, expected a mapping of keys to values")
    return values


def _known_keys(kind: type) -> dict[str, set[str]]:
    """Last part of each key to the full keys that end in it."""
    known: dict[str, set[str]] = {}
    for item in dataclasses.fields(kind):
        if dataclasses.is_dataclass(item.type):
            for inner in dataclasses.fields(item.type):
                known.setdefault(inner.name, set()).add(f"{item.name}.{inner.name}")
        elif item.name == "trainer":
            for name in set(_trainer_types()) - set(OWNED_TRAINER_FIELDS):
                known.setdefault(name, set()).add(f"trainer.{name}")
        else:
            known.setdefault(item.name, set()).add(item.name)
    return known


def _full_key(key: str, known: dict[str, set[str]]) -> str:
    full = known.get(key.rpartition(".")[2], set())
    if key in full:
        return key
    if "." not in key and len(full) == 1:
        return next(iter(full))
    if "." not in key and full:
        raise InputError(f"override {key!r} is ambiguous: {', '.join(sorted(full))}; give one of them")
    if owner := OWNED_TRAINER_FIELDS.get(key.removeprefix("trainer.")):
        raise InputError(f"override {key!r} is not a key of this config: it is decided by {owner}; leave it out")
    everything = {name for names in known.values() for name in names} | set(known)
    remedy = nearest(key, everything) or "; its file shows those it has"
    raise InputError(f"override {key!r} is not a key of this config{remedy}")


def _set(values: dict[str, Any], key: str, value: Any) -> None:
    outer, _, inner = key.rpartition(".")
    if not outer:
        values[key] = value
        return
    block = values.setdefault(outer, {})
    if isinstance(block, dict):  # otherwise _build names the block as the culprit
        block[inner] = value


def _build(kind: type, values: Any, path: str, prefix: str) -> Any:
    if not isinstance(values, dict):
        raise InputError(f"config {path}: {prefix.rstrip('.')} is {_short(values)}, expected a block of keys")
    fields = {item.name: item for item in dataclasses.fields(kind)}
    for key in values:
        if key not in fields:
            remedy = nearest(str(key), fields) or f"; known are {', '.join(fields)}"
            raise InputError(f"config {path}: unknown key {prefix}{key}{remedy}")
    required = [
        name for name, item in fields.items()
        if item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING
    ]  # fmt: skip
    if missing := [name for name in required if name not in values]:
        raise InputError(f"config {path}: missing key {prefix}{missing[0]}; add it")
    built = {}
    for key, value in values.items():
        expected = fields[key].type
        if dataclasses.is_dataclass(expected):
            built[key] = _build(expected, value, path, f"{prefix}{key}.")
        elif typing.get_origin(expected) is dict and dataclasses.is_dataclass(inner := typing.get_args(expected)[1]):
            if not isinstance(value, dict):
                raise InputError(f"config {path}: {prefix}{key} is {_short(value)}, expected a block of names")
            for name in value:
                if not isinstance(name, str):
                    raise InputError(f"config {path}: {prefix}{key} has the name {name!r}, expected text")
            built[key] = {name: _build(inner, block, path, f"{prefix}{key}.{name}.") for name, block in value.items()}
        elif key == "trainer":
            built[key] = _checked_trainer(value, path)
        else:
            built[key] = _typed(value, expected, f"config {path}: {prefix}{key}")
    try:
        return kind(**built)
    except InputError as error:
        raise InputError(f"config {path}: {error}") from None


def _checked_trainer(values: Any, path: str) -> dict[str, Any]:
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise InputError(f"config {path}: trainer is {_short(values)}, expected a block of TrainingArguments fields")
    known = _trainer_types()
    for key in values:
        if key in OWNED_TRAINER_FIELDS:
            raise InputError(
                f"config {path}: trainer.{key} cannot be set: it is decided by {OWNED_TRAINER_FIELDS[key]}; "
                "leave it out"
            )
        if key not in known:
            remedy = nearest(str(key), known) or "; leave it out"
            raise InputError(f"config {path}: trainer.{key} is no field of TrainingArguments{remedy}")
    return {key: _typed(value, known[key], f"config {path}: trainer.{key}") for key, value in values.items()}


def _trainer_types() -> dict[str, Any]:
    from transformers import TrainingArguments  # seconds to import, and only the SFT stages need it

    hints = typing.get_type_hints(TrainingArguments)
    return {item.name: hints[item.name] for item in dataclasses.fields(TrainingArguments) if item.init}


def _typed(value: Any, expected: Any, where: str) -> Any:
    """The value if it has the expected type; whole numbers pass for floats. Richer types are left to their owner."""
    if expected == list[str]:
        if isinstance(value, list) and all(isinstance(item, str) for item in value):
            return value
        raise InputError(f"{where} is {_short(value)}, expected a list of texts")
    options = typing.get_args(expected) if isinstance(expected, types.UnionType) else (expected,)
    if not all(option in (int, float, str, bool, types.NoneType) for option in options):
        return value
    if type(value) is float and float in options and not math.isfinite(value):
        raise InputError(f"{where} is {_short(value)}, expected a finite number")
    if type(value) in options:
        return value
    if type(value) is int and float in options and abs(value) <= sys.float_info.max:
        return float(value)
    names = " or ".join("null" if option is types.NoneType else option.__name__ for option in options)
    raise InputError(f"{where} is {_short(value)}, expected {names}")


def _check(key: str, value: Any, holds: bool, expected: str) -> None:
    if not holds:
        raise InputError(f"{key} is {_short(value)}, expected {expected}")
