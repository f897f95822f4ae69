"""Results and predictions with one field edited give one line or the same comparison, and never a traceback."""

import json

import compare_runs
import make_report
import pytest
import show_progress
from evaluated_steps import write_steps
from finished_experiment import write_experiment

from domain_tokens.comparison import plots, statistics
from domain_tokens.comparison.report import page
from domain_tokens.runs import provenance
from domain_tokens.runs.errors import InputError

MISSING = object()
EDITS = {
    "missing": MISSING, "null": None, "text": "text", "NaN": float("nan"), "huge": 10**400, "negative": -1,
    "list": [], "half a character": "\ud800",
}  # fmt: skip
RIGHT = [(False, True)] * 3 + [(True, False)] * 2 + [(True, True)] * 4


@pytest.fixture
def experiment(tmp_path, monkeypatch):
    """A small finished experiment, with statistics and image files that take no time."""
    monkeypatch.setattr(statistics, "RESAMPLES", 50)
    monkeypatch.setattr(statistics, "detectable_difference", lambda a, b: 0.1)
    monkeypatch.setattr(page, "figure_as_svg", lambda figure, name: name)
    monkeypatch.setattr(plots, "figure_as_png", lambda figure: b"")
    monkeypatch.setattr(provenance, "_commit", lambda: (None, None))
    write_experiment(tmp_path / "made", 0, RIGHT, with_probes=False)
    return tmp_path / "made"


def places(value, so_far=()):
    """The place of every field and list element, as keys and indices from the outermost one inwards."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in inside:
        yield (*so_far, key)
        yield from places(each, (*so_far, key))


def edited(value, place, edit):
    copy = json.loads(json.dumps(value))
    *outer, key = place
    holder = copy
    for each in outer:
        holder = holder[each]
    if edit is MISSING:
        del holder[key]
    else:
        holder[key] = edit
    return copy


def outcome(root):
    """What the three commands make of it: "refused" if one line says why, else the rows of the comparison."""
    output = root.parent / "comparison.json"
    for path in root.parent.glob("comparison*"):
        path.unlink()
    commands = (
        (show_progress, [str(root)]),
        (make_report, [str(root), "--output-path", str(output.with_name("report.html"))]),
        (compare_runs, ["--baseline-dir", str(root / "eval_baseline"), "--mul-tokens-dir",
                        str(root / "eval_mul_tokens"), "--output-path", str(output)]),
    )  # fmt: skip
    refused = False
    for script, arguments in commands:
        try:
            script.main(arguments)
        except InputError as error:
            assert str(root) in str(error) or "gsm8k" in str(error)
            assert len(str(error)) < 1000
            refused = True
    return "refused" if refused else json.loads(output.read_text())["rows"]


def check_edits(root, original, write):
    """Every edit of every field: refused, or no change of the comparison. Both must happen."""
    before = outcome(root)
    assert before != "refused"
    seen = {"refused": 0, "the same": 0}
    for place in places(original):
        for name, edit in EDITS.items():
            write(edited(original, place, edit))
            after = outcome(root)
            assert after in ("refused", before), (place, name)
            seen["refused" if after == "refused" else "the same"] += 1
    assert min(seen.values()) > 3


@pytest.mark.parametrize("name", ["eval_mul_tokens/gsm8k_results.json", "sft_gsm8k_mul_tokens/sft_results.json"])
def test_results_with_an_edited_field(experiment, name):
    path = experiment / name
    original = json.loads(path.read_text())
    original.pop("fact_usage", None)  # nobody reads it
    check_edits(experiment, original, lambda results: path.write_text(json.dumps(results)))


@pytest.mark.parametrize("evaluation", ["gsm8k", "steps"])
def test_predictions_with_an_edited_field(experiment, evaluation):
    if evaluation == "steps":
        for condition in ("baseline", "mul_tokens"):
            write_steps(experiment / f"eval_{condition}", condition, questions=5)
    path = experiment / f"eval_mul_tokens/{evaluation}_predictions.jsonl"
    first, *others = path.read_text().splitlines(keepends=True)
    check_edits(experiment, json.loads(first), lambda row: path.write_text(json.dumps(row) + "\n" + "".join(others)))
