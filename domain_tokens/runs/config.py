"""A YAML file and `key=value` overrides to a recipe. Strict: nothing is guessed, nothing ignored.

An override names a key in full (`trainer.learning_rate=1e-4`) or by its last part where that is unambiguous
(`learning_rate=1e-4`).
"""

import reprlib
import types
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from domain_tokens.runs.errors import InputError, nearest
from domain_tokens.runs.files import shown_path, without_home
from domain_tokens.runs.recipes import Recipe
from domain_tokens.runs.strict_yaml import parse_yaml, read_yaml
from domain_tokens.runs.trainer_fields import OWNED_TRAINER_FIELDS, trainer_types

_repr = reprlib.Repr()
_repr.maxlevel, _repr.maxstring, _repr.maxother = 3, 200, 200
_short = _repr.repr  # a value for a message of one readable line
_SIMPLE = (int, float, str, bool, types.NoneType)
_UNKNOWN_KEY = ("extra_forbidden", "invalid_key")  # a name no field has, a key that is no text
_STRICT = ConfigDict(strict=True, allow_inf_nan=False)


@dataclass(frozen=True)
class LoadedConfig:
    """A recipe, its file, and the dotted keys that the command line overrode."""

    config: Any
    path: str
    overridden: frozenset[str]

    def as_dict(self) -> dict[str, Any]:
        return self.config.model_dump()

    def as_yaml(self) -> str:
        """Return the resolved config as YAML that loads again, each overridden value marked."""
        lines = [f"# resolved from {shown_path(self.path)}"]
        for key, value in self.as_dict().items():
            if isinstance(value, dict):
                lines.append(f"{key}:" if value else f"{key}: {{}}")
                lines += [f"  {self._line(f'{key}.{name}', name, inner)}" for name, inner in value.items()]
            else:
                lines.append(self._line(key, key, value))
        return "\n".join(lines) + "\n"

    def _line(self, dotted: str, name: str, value: Any) -> str:
        dumped = yaml.safe_dump(value, default_flow_style=True, width=10**6).removesuffix("...\n").strip()
        return f"{name}: {dumped}" + ("  # override" if dotted in self.overridden else "")


def load_config(
    path: str | Path, kind: type[Recipe], overrides: list[str] = (), flags: dict[str, Any] | None = None
) -> LoadedConfig:
    """Read a YAML file, apply `key=value` overrides and flags (dotted key to value, None = not given), check all."""
    values, known = read_yaml(Path(path)), _known_keys(kind)
    overridden = {}
    for override in overrides:
        key, separator, text = override.partition("=")
        if not separator or not key:
            raise InputError(f"override {_short(override)} is not key=value, expected something like seed=16")
        try:
            overridden[_full_key(key, known)] = parse_yaml(text)
        except yaml.YAMLError:
            raise InputError(
                f"override {_short(override)}: {_short(text)} is not a YAML value; put it into quotes"
            ) from None
    overridden |= {key: value for key, value in (flags or {}).items() if value is not None}
    for key, value in overridden.items():
        outer, _, inner = key.rpartition(".")
        block = values.setdefault(outer, {}) if outer else values
        if isinstance(block, dict):  # otherwise validation names the block as the culprit
            block[inner] = value
    for block in (values, values.get("data")):  # a recipe is saved and published, and the home folder tells a name
        for key in ("dataset", "decontaminate_against"):
            if isinstance(block, dict) and isinstance(block.get(key), str):
                block[key] = without_home(block[key])
    if "trainer" in kind.model_fields:
        values["trainer"] = _checked_trainer(values.get("trainer"), str(path))
    try:
        return LoadedConfig(kind.model_validate(values), str(path), frozenset(overridden))
    except ValidationError as error:
        # A misspelt key is missing under its right name, too: name the spelling.
        problem = min(error.errors(), key=lambda problem: problem["type"] not in _UNKNOWN_KEY)
        raise InputError(f"config {path}: {_explained(problem, kind)}") from None


def _known_keys(kind: type[Recipe]) -> dict[str, set[str]]:
    """Map the last part of each key to the full keys that end in it."""
    known: dict[str, set[str]] = {}
    for name, field in kind.model_fields.items():
        inner = [name]
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            inner = [f"{name}.{each}" for each in field.annotation.model_fields]
        elif name == "trainer":
            inner = [f"trainer.{each}" for each in set(trainer_types()) - set(OWNED_TRAINER_FIELDS)]
        for full in inner:
            known.setdefault(full.rpartition(".")[2], set()).add(full)
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


def _checked_trainer(values: Any, path: str) -> dict[str, Any]:
    """Return the trainer block with simple values typed; richer types are left to TrainingArguments itself."""
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise InputError(f"config {path}: trainer is {_short(values)}, expected a block of TrainingArguments fields")
    known, checked = trainer_types(), {}
    for key, value in values.items():
        if owner := OWNED_TRAINER_FIELDS.get(key):
            raise InputError(f"config {path}: trainer.{key} cannot be set: it is decided by {owner}; leave it out")
        if key not in known:
            remedy = nearest(str(key), known) or "; leave it out"
            raise InputError(f"config {path}: trainer.{key} is no field of TrainingArguments{remedy}")
        checked[key] = value
        if all(option in _SIMPLE for option in _options(known[key])):
            try:
                checked[key] = TypeAdapter(known[key], config=_STRICT).validate_python(value)
            except ValidationError as error:
                problem = error.errors()[-1]
                raise InputError(
                    f"config {path}: trainer.{key} is {_short(value)}, expected {_type_name(problem, known[key])}"
                ) from None
    return checked


def _explained(problem: dict[str, Any], kind: type[Recipe]) -> str:
    """Turn an error of pydantic's into the words of our messages: the key, its value, what was expected."""
    *outer, last = problem["loc"]
    parent: Any = kind
    field = None
    for part in [*outer, last]:
        if isinstance(parent, type) and issubclass(parent, BaseModel):
            if part not in parent.model_fields:
                break
            field = parent.model_fields[part]
            parent = field.annotation
        elif typing.get_origin(parent) is dict:
            parent = typing.get_args(parent)[1]
    dotted, value = ".".join(map(str, [*outer, last])), _short(problem["input"])
    if problem["type"] in _UNKNOWN_KEY:
        return f"unknown key {dotted}" + (
            nearest(str(last), parent.model_fields) or f"; known are {', '.join(parent.model_fields)}"
        )
    if problem["type"] == "missing":
        return f"missing key {dotted}; add it"
    if last == "[key]":
        dotted = ".".join(map(str, outer[:-1]))
        if problem["type"] == "string_type":
            return f"{dotted} has the name {value}, expected text"
        return f"{dotted} is {value}, expected {problem['ctx']['error']}"
    if problem["type"] == "model_type":
        return f"{dotted} is {value}, expected a block of keys"
    if problem["type"] == "dict_type":
        return f"{dotted} is {value}, expected a block of names"
    if isinstance(last, int) or problem["type"] == "list_type":
        return f"{dotted} is {value}, expected a list of texts"
    if problem["type"].endswith("_type") or problem["type"] == "finite_number":
        return f"{dotted} is {value}, expected {_type_name(problem, field.annotation)}"
    return f"{dotted} is {value}, expected {field.description}"


def _options(annotation: Any) -> tuple[Any, ...]:
    return typing.get_args(annotation) if isinstance(annotation, types.UnionType) else (annotation,)


def _type_name(problem: dict[str, Any], annotation: Any) -> str:
    if problem["type"] == "finite_number":
        return "a finite number"
    return " or ".join("null" if option is types.NoneType else option.__name__ for option in _options(annotation))
