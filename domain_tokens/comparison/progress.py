"""How far an experiment has come, from what lies in its folders: stage × condition, one table a seed."""

from pathlib import Path

from domain_tokens.conditions import CONDITIONS
from domain_tokens.runs.files import read_json
from domain_tokens.runs.names import (
    EVALUATIONS,
    SFT_STAGES,
    UNFINISHED,
    eval_folder,
    is_experiment,
    results_file,
    seed_folder,
    seeds_below,
    stage_folder,
    unfinished_answers,
    unfinished_evaluation,
)

PENDING = "pending"

_NAMES = {
    "sft_tulu": "stage 1: Tulu", "sft_gsm8k": "stage 2: GSM8K", "gsm8k": "evaluation: GSM8K",
    "arithmetic": "evaluation: probes",
}  # fmt: skip
_BEGIN, _END = "<!-- progress of {} -->", "<!-- end of progress -->"


def progress_table(root: Path) -> list[tuple[str, ...]]:
    """Header and rows: what, then for each condition `complete: …`, `running …` or `pending`."""
    rows: list[tuple[str, ...]] = [("", *CONDITIONS)]
    seeds = seeds_below(root)
    roots = [root] if is_experiment(root) or not seeds else []
    for each in [*roots, *(seed_folder(root, seed) for seed in seeds)]:
        seed = "" if each == root else f"{each.name.replace('_', ' ')}, "
        for stage, results_name in SFT_STAGES.items():
            folders = [stage_folder(each, stage, condition) for condition in CONDITIONS]
            rows.append((seed + _NAMES[stage], *(_stage(folder, results_name) for folder in folders)))
        for name in EVALUATIONS:
            folders = [eval_folder(each, condition) for condition in CONDITIONS]
            rows.append((seed + _NAMES[name], *(_evaluation(folder, name) for folder in folders)))
    return rows


def _stage(folder: Path, results_name: str) -> str:
    if (folder / results_name).is_file():
        results = read_json(folder / results_name)
        if results["eval_loss"] is None:
            return f"complete: training loss {results['train_loss']:.4f}"
        return f"complete: validation loss {results['eval_loss']:.4f}"
    if not (folder / UNFINISHED).is_file():
        return PENDING
    states = [read_json(path) for path in folder.glob("checkpoint-*/trainer_state.json")]
    if not states:
        return "running, no checkpoint yet"
    last = max(states, key=lambda state: state["global_step"])
    return f"running, step {last['global_step']} of {last['max_steps']} saved"


def _evaluation(folder: Path, name: str) -> str:
    if (folder / results_file(name)).is_file():
        metrics = read_json(folder / results_file(name))["metrics"]
        return f"complete: {metrics['accuracy']:.1%} of {metrics['total']}"
    if not (folder / unfinished_evaluation(name)).is_file():
        return PENDING
    answered = sum(path.read_bytes().count(b"\n") for path in folder.glob(unfinished_answers(name, "*")))
    return f"running, {answered} answered"


def as_markdown(rows: list[tuple[str, ...]]) -> str:
    header, *body = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([header, "|---" * len(rows[0]) + "|", *body])


def put_into(note: str, root: str, markdown: str) -> str:
    """The note with its block for `root` replaced, or put at its end. ValueError where a block has no end."""
    begin = _BEGIN.format(root)
    block = f"{begin}\n{markdown}\n{_END}"
    before, found, rest = note.partition(begin)
    if not found:
        return f"{note.rstrip()}\n\n{block}\n"
    _old, ended, after = rest.partition(_END)
    if not ended:
        raise ValueError(f"a block that begins with {begin} and never ends; put {_END} behind it")
    return f"{before}{block}{after}"
