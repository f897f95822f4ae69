"""The progress of an experiment, from what lies in its folders: stage by condition, for each seed."""

import itertools
from pathlib import Path

from domain_tokens.comparison.formats import EVALUATION_NAMES, STAGE_NAMES, percent
from domain_tokens.conditions import CONDITIONS
from domain_tokens.runs import names
from domain_tokens.runs.provenance import is_generated
from domain_tokens.runs.results_schema import CheckpointState, ModelRecord, TrainingResults, evaluation_schemas
from domain_tokens.runs.validation import read_results

_PENDING = "pending"
_BEGIN, _END = "<!-- progress of {} -->", "<!-- end of progress -->"


def progress_table(root: Path) -> list[tuple[str, ...]]:
    """Return header and rows: a stage or evaluation, and for each condition `complete: …`, `running …` or `pending`.

    Conditions are those with a folder. A stage that was left out is not shown, nor are steps where none are evaluated.
    """
    conditions = names.conditions_below(root, CONDITIONS) or list(CONDITIONS)
    roots = [names.seed_folder(root, seed) for seed in names.seeds_below(root)]
    if names.is_experiment(root) or not roots:
        roots.insert(0, root)
    rows: list[tuple[str, ...]] = [("(generated data)" if _is_generated(roots, conditions) else "", *conditions)]
    for each in roots:
        seed = "" if each == root else f"{each.name.replace('_', ' ')}, "
        stages = []
        for stage, name in STAGE_NAMES.items():
            folders = [names.stage_folder(each, stage, condition) for condition in conditions]
            stages.append((seed + name, *(_stage(folder, names.SFT_STAGES[stage]) for folder in folders)))
        is_begun = [any(cell != _PENDING for cell in cells) for _, *cells in stages]
        rows += [row for i, row in enumerate(stages) if is_begun[i] or not any(is_begun[i:])]
        for evaluation, name in EVALUATION_NAMES.items():
            folders = [names.eval_folder(each, condition) for condition in conditions]
            cells = [_evaluation(folder, evaluation) for folder in folders]
            if evaluation != names.STEPS_EVAL or any(cell != _PENDING for cell in cells):
                rows.append((f"{seed}evaluation: {name}", *cells))
    return rows


def _is_generated(roots: list[Path], conditions: list[str]) -> bool:
    """Return whether a model that is there comes from the toy world, by its record or by an evaluation of it."""
    found = []
    for root, condition in itertools.product(roots, conditions):
        records = [names.stage_folder(root, stage, condition) / names.RECORD_NAME for stage in names.SFT_STAGES]
        found += [read_results(path, ModelRecord)["lineage"] for path in records if path.is_file()]
        for name in EVALUATION_NAMES:
            path = names.eval_folder(root, condition) / names.results_file(name)
            if path.is_file():
                found.append(read_results(path, evaluation_schemas(name)[0]).get("lineage"))
    return any(map(is_generated, found))


def _stage(folder: Path, results_name: str) -> str:
    is_begun = (folder / names.UNFINISHED).is_file()  # beside older results, it is to replace them
    if (folder / results_name).is_file() and not is_begun:
        results = read_results(folder / results_name, TrainingResults)
        if results.get("eval_loss") is None:
            return f"complete: training loss {results['train_loss']:.4f}"
        return f"complete: validation loss {results['eval_loss']:.4f}"
    if not is_begun:
        return _PENDING
    states = [read_results(path, CheckpointState) for path in folder.glob("checkpoint-*/trainer_state.json")]
    if not states:
        return "running, no checkpoint yet"
    last = max(states, key=lambda state: state["global_step"])
    return f"running, step {last['global_step']} of {last['max_steps']} saved"


def _evaluation(folder: Path, name: str) -> str:
    is_begun = (folder / names.unfinished_evaluation(name)).is_file()
    if (folder / names.results_file(name)).is_file() and not is_begun:
        metrics = read_results(folder / names.results_file(name), evaluation_schemas(name)[0])["metrics"]
        share = metrics["step_accuracy" if name == names.STEPS_EVAL else "accuracy"]
        return f"complete: {percent(share)} of {metrics['total']}"
    if not is_begun:
        return _PENDING
    answered = sum(path.read_bytes().count(b"\n") for path in folder.glob(names.unfinished_answers(name, "*")))
    return f"running, {answered} answered"


def as_markdown(rows: list[tuple[str, ...]]) -> str:
    header, *body = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([header, "|---" * len(rows[0]) + "|", *body])


def put_into(note: str, root: str, markdown: str) -> str:
    """Return the note with its block for `root` replaced or added at its end. ValueError if the block has no end."""
    begin = _BEGIN.format(root)
    block = f"{begin}\n{markdown}\n{_END}"
    before, found, rest = note.partition(begin)
    if not found:
        return f"{note.rstrip()}\n\n{block}\n"
    old, ended, after = rest.partition(_END)
    if not ended or _BEGIN.partition("{}")[0] in old:  # the end of another block
        raise ValueError(f"a block that begins with {begin} and never ends; put {_END} after it")
    return f"{before}{block}{after}"
