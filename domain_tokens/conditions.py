"""The conditions of the experiment, read from conditions.yaml: what each makes of a fact in assistant text."""

from dataclasses import dataclass
from importlib.resources import files

import yaml

_PLAIN = "{text}"


@dataclass(frozen=True)
class Condition:
    """One way to write facts in training text."""

    name: str
    fact: str  # "{text}", "{token}", or both
    about: str  # a clause for model cards and reports

    @property
    def injects(self) -> bool:
        """Whether training text is changed at all."""
        return self.fact != _PLAIN


def _read() -> dict[str, Condition]:
    text = files("domain_tokens").joinpath("conditions.yaml").read_text(encoding="utf-8")
    return {name: Condition(name, **values) for name, values in yaml.safe_load(text).items()}


CONDITIONS = _read()
CONDITION_NAMES = " or ".join(CONDITIONS)  # for messages
