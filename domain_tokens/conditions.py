"""The conditions of the experiment, read from conditions.yaml: what each makes of a fact in assistant text."""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib.resources import files

import yaml

from domain_tokens.inject import find_facts

_PLAIN = "{text}"
_NAME = re.compile(r"[a-z][a-z0-9_]{0,23}")
# A fact's token is read as nothing only directly in front of the fact, so no other order keeps what a text says.
_FACT = re.compile(r"(\{placebo\})*(\{token\}|(\{token\})?\{text\})")


@dataclass(frozen=True)
class Condition:
    """One way to write facts in training text."""

    name: str
    fact: str  # a template of {text}, {token} and {placebo}
    about: str  # a clause for model cards and reports

    def __post_init__(self):
        if not _NAME.fullmatch(str(self.name)):
            raise ValueError(f"conditions.yaml: {self.name!r} is no name, expected 1 to 24 of a-z, 0-9 and _")
        if not _FACT.fullmatch(str(self.fact)):
            raise ValueError(
                f"conditions.yaml: fact of {self.name} is {self.fact!r}, expected {{text}}, {{token}} or "
                "{token}{text}, after any number of {placebo}; in quotes"
            )

    @property
    def injects(self) -> bool:
        """Whether training text is changed at all."""
        return self.fact != _PLAIN

    @property
    def needs_placebo(self) -> bool:
        return "{placebo}" in self.fact

    def without_injection(self) -> "Condition":
        """Return the condition's ablation, which leaves text as it is."""
        return replace(self, fact=_PLAIN)

    def rewrite(self, text: str, placebo: str) -> tuple[str, Counter[str]]:
        """Return text as this condition trains it, and how often each fact token or its placebo was put in.

        placebo: the vocabulary's token for `{placebo}`. Rewriting a rewritten text changes nothing.
        """
        if not self.injects:
            return text, Counter()
        pieces = [*self.pieces(text, placebo)]
        return "".join(piece for piece, _ in pieces), Counter(token for _, token in pieces if token)

    def pieces(self, text: str, placebo: str) -> Iterator[tuple[str, str | None]]:
        """Yield the rewritten text in pieces, each with the token of the fact that it stands for, or None.

        The pieces without a fact are the same in every condition.
        """
        copied = 0
        for start, end, token in find_facts(text):
            yield text[copied:start], None
            yield self.fact.format(text=text[start:end], token=token, placebo=placebo), token
            copied = end
        yield text[copied:], None


def _read() -> dict[str, Condition]:
    text = files("domain_tokens").joinpath("conditions.yaml").read_text(encoding="utf-8")
    conditions = {}
    for name, values in yaml.safe_load(text).items():
        if not isinstance(values, dict) or set(values) != {"fact", "about"}:
            raise ValueError(f"conditions.yaml: {name} is {values!r}, expected the keys fact and about")
        conditions[name] = Condition(name, **values)
    return conditions


CONDITIONS = _read()
CONDITION_NAMES = " or ".join(CONDITIONS)  # for messages
