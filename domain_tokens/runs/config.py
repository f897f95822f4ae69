"""A YAML file and `key=value` overrides to small frozen dataclasses. Strict: nothing is guessed, nothing ignored.

Every value stands in the YAML; there is no second copy of a recipe here. An override names a key in full
(`trainer.learning_rate=1e-4`) or by its last part where that is unambiguous (`learning_rate=1e-4`).
"""

import dataclasses
import math
import sys
import types
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from domain_tokens.runs.errors import InputError, nearest
from domain_tokens.runs.files import shown_path, without_home
from domain_tokens.runs.recipes import OWNED_TRAINER_FIELDS, short_repr
from domain_tokens.runs.strict_yaml import parse_yaml, read_yaml


@dataclass(frozen=True)
class LoadedConfig:
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


def load_config(
    path: str | Path, kind: type, overrides: list[str] = (), flags: dict[str, Any] | None = None
) -> LoadedConfig:
    """Read a YAML file, apply `key=value` overrides and flags (dotted key to value, None = not given), check all."""
    values = read_yaml(Path(path))
    known = _known_keys(kind)
    overridden = {}
    for override in overrides:
        key, separator, text = override.partition("=")
        if not separator or not key:
            raise InputError(f"override {short_repr(override)} is not key=value, expected something like seed=16")
        try:
            overridden[_full_key(key, known)] = parse_yaml(text)
        except yaml.YAMLError:
            raise InputError(
                f"override {short_repr(override)}: {short_repr(text)} is not a YAML value; put it into quotes"
            ) from None
    overridden |= {key: value for key, value in (flags or {}).items() if value is not None}
    for key, value in overridden.items():
        _set(values, key, value)
    for block in (values, values.get("data")):  # a recipe is saved and published, and the home folder tells a name
        for key in ("dataset", "decontaminate_against"):
            if isinstance(block, dict) and isinstance(block.get(key), str):
                block[key] = without_home(block[key])
    config = _build(kind, values, str(path), "")
    return LoadedConfig(config, str(path), frozenset(overridden))


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
        raise InputError(f"config {path}: {prefix.rstrip('.')} is {short_repr(values)}, expected a block of keys")
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
                raise InputError(f"config {path}: {prefix}{key} is {short_repr(value)}, expected a block of names")
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
        raise InputError(
            f"config {path}: trainer is {short_repr(values)}, expected a block of TrainingArguments fields"
        )
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
        raise InputError(f"{where} is {short_repr(value)}, expected a list of texts")
    options = typing.get_args(expected) if isinstance(expected, types.UnionType) else (expected,)
    if not all(option in (int, float, str, bool, types.NoneType) for option in options):
        return value
    if type(value) is float and float in options and not math.isfinite(value):
        raise InputError(f"{where} is {short_repr(value)}, expected a finite number")
    if type(value) in options:
        return value
    if type(value) is int and float in options and abs(value) <= sys.float_info.max:
        return float(value)
    names = " or ".join("null" if option is types.NoneType else option.__name__ for option in options)
    raise InputError(f"{where} is {short_repr(value)}, expected {names}")
