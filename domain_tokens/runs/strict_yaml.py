"""YAML as a recipe means it: 2e-5 is a number, `no`, 010 and 1:30 are texts, and nothing is given twice."""

import re
import typing
from pathlib import Path
from typing import Any

import yaml

from domain_tokens.runs.errors import InputError

_OWN = ("bool", "int", "float", "timestamp")  # what a plain word may be by rules of our own, below, or not at all


class _Loader(yaml.SafeLoader):
    """YAML 1.1 reads 2e-5 as text, `no` as false, 010 as 8 and 1:30 as 90, and takes the last of two equal keys.

    This loader does not.
    """

    yaml_implicit_resolvers: typing.ClassVar = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag.rpartition(":")[2] not in _OWN]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def compose_node(self, parent, index):
        """Refuse aliases: a few of them can expand beyond memory, or make a value that holds itself."""
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


for _kind, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?(?:0|[1-9][0-9_]*)", "-+0123456789"),
    ("float", r"[-+]?(?:(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+)", "-+.0123456789"),
    ("float", r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)", "-+."),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_kind}", re.compile(f"^(?:{_pattern})$"), list(_first))


def parse_yaml(text: str) -> Any:
    """Return what the text says. Raises yaml.YAMLError."""
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError:
        raise
    except Exception as error:  # impossible dates, endless numbers, misplaced tags, endless nesting
        raise yaml.YAMLError(str(error)) from error


def read_yaml(path: Path) -> dict[str, Any]:
    """Return the mapping that a YAML file holds. Raises InputError for anything else."""
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise InputError(f"config {path} {what}; expected a YAML file such as those in the configs folders")
    try:
        values = parse_yaml(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"config {path} is not readable YAML: {error}; fix it") from None
    if not isinstance(values, dict):
        found = "empty" if values is None else f"a {type(values).__name__}"
        raise InputError(f"config {path} is {found}, expected a mapping of keys to values")
    return values
