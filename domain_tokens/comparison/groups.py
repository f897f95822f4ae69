"""Groups of evaluations: what each is, by its results, and in what two of them differ."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from domain_tokens.comparison.reading import Evaluation, Runs
from domain_tokens.conditions import CONDITIONS
from domain_tokens.runs.errors import InputError, short_repr
from domain_tokens.runs.provenance import was_injected

LONGEST_LABEL = 24
# A group's label is a key of comparison.json's rows, beside these.
_TAKEN = (
    "name", "questions", "unit", "difference", "interval", "cohens_h", "detectable_difference", "verdict", "mcnemar_p",
    "permutation_p", "interval_p", "holm_p",
)  # fmt: skip


@dataclass(frozen=True)
class Group:
    """One side of a comparison: the same training with one seed or several."""

    condition: str
    injected: bool | None  # whether the last stage wrote facts in the condition's way; None: the results do not say
    init: str | None  # how new embedding rows began; None: the results do not say
    source: str | None  # what the start model was made of; None: the results do not say
    stages: str | None  # the stages it went through; None: the results do not say
    seeds: list[int | None]

    def has_facts(self) -> bool:
        """Whether facts were injected, by the results or else by the condition."""
        return self._by_condition() if self.injected is None else self.injected

    def is_ablation(self) -> bool:
        """Whether facts were injected otherwise than the condition says."""
        return self.has_facts() != self._by_condition()

    def _by_condition(self) -> bool:
        return self.condition in CONDITIONS and CONDITIONS[self.condition].injects


def check_label(label: str) -> None:
    """Raise InputError for a label that would be misread in a table, a plot or comparison.json."""
    is_shown_whole = label[:1].isalnum() and " ".join(label.split()) == label
    if not is_shown_whole or len(label) > LONGEST_LABEL or not all(map(_is_drawn, label)):
        raise InputError(
            f"label {short_repr(label)} is no label, expected 1 to {LONGEST_LABEL} visible Latin, Greek or Cyrillic "
            "characters, a letter or digit first, single spaces within"
        )
    if label in _TAKEN or label.startswith("only_"):
        raise InputError(f"label {label!r} is a key of comparison.json; choose another")


def _is_drawn(character: str) -> bool:
    """Return whether the plots' font has a character. Matplotlib leaves labels that begin with _ out of legends."""
    code = ord(character)
    return character.isprintable() and (code < 0x590 or 0x2000 <= code < 0x2300)


def describe_groups(runs: Mapping[str, Runs]) -> dict[str, Group]:
    """Return by label what each group is. InputError for a group that mixes different trainings."""
    everything: dict[str, list[Evaluation]] = {}
    for groups in runs.values():
        for label, evaluations in groups.items():
            everything.setdefault(label, []).extend(evaluations)
    first = next(iter(runs.values()))
    return {
        label: _described(label, group, [each.seed for each in first[label]]) for label, group in everything.items()
    }


def _described(label: str, evaluations: list[Evaluation], seeds: list[int | None]) -> Group:
    kinds = [_kind(each) for each in evaluations]
    said = []
    asked = ("condition", "facts injected", "init", "source", "stages")
    for what, values in zip(asked, zip(*kinds, strict=True), strict=True):
        known = {value: each.folder for value, each in zip(values, evaluations, strict=True) if value is not None}
        if len(known) > 1:
            words = " and ".join(f"{value} in {folder}" for value, folder in known.items())
            raise InputError(
                f"group {label} mixes {what}: {words}; a group's folders differ in nothing but their seeds"
            )
        said.append(next(iter(known), None))
    return Group(*said, seeds)


def differences(one: Group, other: Group) -> list[str]:
    """Return in what two groups differ. Injection that follows from the conditions is no difference of its own."""
    injection = one.has_facts() != other.has_facts() and (one.is_ablation() or other.is_ablation())
    found = {
        "condition": one.condition != other.condition,
        "injection": injection,
        **{
            what: None not in (values := (getattr(one, what), getattr(other, what))) and values[0] != values[1]
            for what in ("init", "source", "stages")
        },
        "seeds": one.seeds != other.seeds,
    }
    return [what for what, differs in found.items() if differs]


def _kind(evaluation: Evaluation) -> tuple[str, bool | None, str | None, str | None, str | None]:
    """Return the fields of `Group` but for the seeds."""
    lineage: list[dict[str, Any]] = evaluation.results.get("lineage") or []
    init = next((stage["init"] for stage in reversed(lineage) if "init" in stage), None)
    source = lineage[0].get("source") if lineage else None
    stages = ", ".join(str(stage.get("stage")) for stage in lineage) or None
    return evaluation.results["condition"], was_injected(lineage), init, source, stages
