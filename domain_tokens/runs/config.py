"""Load a config: a YAML file, `key=value` overrides and flags, checked against its recipe.

Every value stands in the YAML; there is no second copy here. An override names a key in full
(`trainer.learning_rate=1e-4`) or by its last part where that is unambiguous (`learning_rate=1e-4`).
"""

from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from domain_tokens.runs.errors import InputError, nearest, short_repr
from domain_tokens.runs.files import shown_path
from domain_tokens.runs.strict_yaml import parse_yaml, read_yaml
from domain_tokens.runs.trainer_fields import OWNED_TRAINER_FIELDS, trainer_types

# What pydantic's errors of type find missing; an error of range says the field's description.
_EXPECTED = {
    "int_type": "int", "float_type": "float", "string_type": "str", "string_unicode": "str", "bool_type": "bool",
    "dict_type": "a block of names", "model_type": "a block of keys",
    "finite_number": "a finite number",
}  # fmt: skip


@dataclass(frozen=True)
class LoadedConfig:
    """A config, where it came from, and which dotted keys were overridden on the command line."""

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
                lines += [self._line(f"{key}.{name}", name, inner, "  ") for name, inner in value.items()]
            else:
                lines.append(self._line(key, key, value, ""))
        return "\n".join(lines) + "\n"

    def _line(self, dotted: str, name: str, value: Any, indent: str) -> str:
        dumped = yaml.safe_dump(value, default_flow_style=True, width=10**6).removesuffix("...\n").strip()
        return f"{indent}{name}: {dumped}" + ("  # override" if dotted in self.overridden else "")


def load_config(
    path: str | Path, kind: type[BaseModel], overrides: list[str] = (), flags: dict[str, Any] | None = None
) -> LoadedConfig:
    """Read a YAML file, apply `key=value` overrides and flags (dotted key to value, None = not given), check all."""
    values = read_yaml(Path(path))
    known = _known_keys(kind)
    overridden = dict(_override(text, known) for text in overrides)
    for key, value in (flags or {}).items():
        if value is not None and overridden.setdefault(key, value) != value:
            raise InputError(f"{key} is {value} by its flag, {overridden[key]} by an override; give it once")
    for key, value in overridden.items():
        _put(values, key.split("."), value)
    try:
        return LoadedConfig(kind.model_validate(values), str(path), frozenset(overridden))
    except ValidationError as error:
        raise InputError(f"config {path}: {_complaint(error, kind)}") from None
    except InputError as error:
        raise InputError(f"config {path}: {error}") from None


def _put(block: Any, path: list[str], value: Any) -> None:
    """Set a value in nested blocks. What should be a block and is none stays, for the recipe to refuse."""
    if not isinstance(block, dict):
        return
    if len(path) == 1:
        block[path[0]] = value
        return
    if block.get(path[0]) is None:
        block[path[0]] = {}
    _put(block[path[0]], path[1:], value)


def _known_keys(kind: type[BaseModel], outer: str = "") -> set[str]:
    """Return the dotted keys that an override may name. outer: what stands before each."""
    keys = set()
    for name, field in kind.model_fields.items():
        if name == "trainer":
            keys |= {f"trainer.{inner}" for inner in set(trainer_types()) - set(OWNED_TRAINER_FIELDS)}
        elif block := _block(field.annotation):
            keys |= _known_keys(block, f"{outer}{name}.")
            keys |= {outer + name} if type(None) in get_args(field.annotation) else set()  # eval_probes=null
        else:
            keys.add(outer + name)
    return keys


def _override(text: str, known: set[str]) -> tuple[str, Any]:
    """Return the full key and the value of an override such as `learning_rate=1e-4`."""
    key, separator, value = text.partition("=")
    if not separator or not key:
        raise InputError(f"override {short_repr(text)} is not key=value, expected something like seed=16")
    full = [key] if key in known else sorted(name for name in known if name.endswith(f".{key}"))
    if len(full) > 1:
        raise InputError(f"override {key!r} is ambiguous: {', '.join(full)}; give one of them")
    if not full:
        if owner := OWNED_TRAINER_FIELDS.get(key.removeprefix("trainer.")):
            raise InputError(f"override {key!r} is not a key of this config: it is decided by {owner}; leave it out")
        remedy = nearest(key, known | {name.rpartition(".")[2] for name in known}) or "; its file shows those it has"
        raise InputError(f"override {key!r} is not a key of this config{remedy}")
    try:
        return full[0], parse_yaml(value)
    except yaml.YAMLError:
        raise InputError(
            f"override {short_repr(text)}: {short_repr(value)} is not a YAML value; put it into quotes"
        ) from None


def _complaint(error: ValidationError, kind: type[BaseModel]) -> str:
    """Return what is wrong first: an unknown key, which is why another one is missing, a missing key, a value."""
    order = {"extra_forbidden": 0, "invalid_key": 0, "missing": 1}
    first = min(error.errors(), key=lambda each: order.get(each["type"], 2))
    *outer, key = map(str, first["loc"])
    where = ".".join([*outer, key])
    if first["type"] in ("extra_forbidden", "invalid_key"):
        fields = _annotation(kind, outer).model_fields
        return f"unknown key {where}" + (nearest(key, fields) or f"; known are {', '.join(fields)}")
    if first["type"] == "missing":
        return f"missing key {where}; add it"
    if key == "[key]":
        expected = first["msg"] if first["type"] == "name" else "text"
        return f"{'.'.join(outer[:-1])} has the name {short_repr(first['input'])}, expected {expected}"
    if first["type"] == "literal_error":
        expected = first["ctx"]["expected"].replace(", ", " or ").replace("'", "")
    elif expected := _EXPECTED.get(first["type"]):
        expected += " or null" if type(None) in get_args(_annotation(kind, [*outer, key])) else ""
    else:
        while (block := _block(_annotation(kind, outer))) is None:  # an entry of a list has its list's description
            *outer, key = outer
        expected = block.model_fields[key].description or first["msg"]
    return f"{where} is {short_repr(first['input'])}, expected {expected}"


def _annotation(kind: Any, path: list[str]) -> Any:
    """Return the type at a place in a recipe."""
    for key in path:
        block = _block(kind)
        kind = block.model_fields[key].annotation if block else get_args(kind)[-1]
    return _block(kind) or kind


def _block(annotation: Any) -> type[BaseModel] | None:
    """Return the recipe that an annotation such as `StageConfig | None` stands for, None for a single value."""
    options = get_args(annotation) if isinstance(annotation, UnionType) else (annotation,)
    return next((option for option in options if isinstance(option, type) and issubclass(option, BaseModel)), None)
