"""The page a model has on the Hub: its values are gathered here, its prose stands in model_card.md.jinja.

Every figure comes from the model folder's own files and from the evaluations beside it, so a card changes from one
upload to the next only if they do.
"""

import json
import re
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import jinja2
from huggingface_hub import EvalResult, ModelCardData

from domain_tokens.conditions import CONDITIONS
from domain_tokens.models.folder import OpenModel
from domain_tokens.prompt import prompt_text, question_conversation
from domain_tokens.runs.config_schema import STAGES, RegistryConfig
from domain_tokens.runs.errors import InputError
from domain_tokens.runs.files import read_json
from domain_tokens.runs.names import (
    EVALUATIONS,
    HUB_ID,
    PROBES_EVAL,
    RESOLVED_CONFIG,
    SFT_STAGES,
    STEPS_EVAL,
    results_file,
)  # fmt: skip
from domain_tokens.runs.provenance import is_generated, was_injected
from domain_tokens.runs.results_schema import TrainingResults, evaluation_schemas
from domain_tokens.runs.validation import read_results

_GSM8K = "openai/gsm8k"
_QUESTION = "What is 7 times 8?"
_BEFORE = {later: earlier for earlier, later in pairwise(STAGES)}


def render_model_card(
    opened: OpenModel, folder: Path, repo_id: str, license_id: str, others: Mapping, registry: RegistryConfig
) -> str:
    """Return the whole text of the card, front matter included.

    others: (condition, weights) to repository, of the models that are uploaded by the same command. Raises InputError
    for a record or results that lack what the card tells.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=False, trim_blocks=True, lstrip_blocks=True,
        keep_trailing_newline=True, undefined=jinja2.StrictUndefined,
    )  # fmt: skip
    environment.filters |= {"cell": _cell, "plain": _plain, "percent": "{:.1%}".format, "commit": _commit}
    try:
        values = _values(opened, folder, repo_id)
        values["data"] = _front_matter(opened, values, license_id, _base_model(opened, repo_id, others, registry))
        return environment.get_template("model_card.md.jinja").render(values)
    except (KeyError, TypeError, ValueError, AttributeError, jinja2.UndefinedError) as error:  # of files from elsewhere
        raise InputError(
            f"{folder}: its record or results, or an evaluation beside it, lack what the model card tells "
            f"({type(error).__name__}: {error}); make them again"
        ) from error


def _values(opened: OpenModel, folder: Path, repo_id: str) -> dict[str, Any]:
    condition = CONDITIONS[opened.condition]
    results_name = SFT_STAGES.get(opened.lineage[-1]["stage"])
    sft = None if results_name is None else read_results(folder / results_name, TrainingResults)
    recipe = (
        (folder / RESOLVED_CONFIG).read_text(encoding="utf-8").strip() if (folder / RESOLVED_CONFIG).is_file() else ""
    )
    evaluations = find_evaluations(folder, opened.weights)
    for name, evaluation in evaluations.items():
        evaluation["title"] = _dataset(name, evaluation)["dataset_name"]
    return {
        "name": repo_id.rpartition("/")[2],
        "repo_id": repo_id,
        "opened": opened,
        "model": opened.model,
        "condition": condition,
        "stages": [stage for stage in opened.lineage if "dataset" in stage],
        "is_ablation": condition.injects and was_injected(opened.lineage) is False,
        "is_generated": is_generated(opened.lineage),
        "question": _QUESTION,
        "prompt": json.dumps(prompt_text(question_conversation(_QUESTION), opened.tokenizer.eos_token)),
        "end_of_text": opened.tokenizer.eos_token,
        "sft": sft,
        "versions": sft["environment"].get("libraries") if sft is not None else None,
        "recipe": recipe,
        "fence": "`" * max(3, 1 + max(map(len, re.findall("`+", recipe)), default=0)),
        "evaluations": {name: evaluation for name, evaluation in evaluations.items() if name != STEPS_EVAL},
        "steps": evaluations.get(STEPS_EVAL),
    }


def _front_matter(opened: OpenModel, values: Mapping, license_id: str, base_model: str | None) -> ModelCardData:
    datasets = [stage["dataset"] for stage in values["stages"] if HUB_ID.fullmatch(stage["dataset"])]
    return ModelCardData(
        license=license_id, language="en", library_name="transformers", pipeline_tag="text-generation",
        base_model=base_model, datasets=list(dict.fromkeys(datasets)) or None,
        tags=["domain-tokens", "arithmetic", opened.condition, *(["sft"] if values["stages"] else [])],
        model_name=values["name"], eval_results=_eval_results(values["evaluations"], values["steps"]) or None,
    )  # fmt: skip


def _base_model(opened: OpenModel, repo_id: str, others: Mapping, registry: RegistryConfig) -> str | None:
    """Return the Hub id of the model this one was trained from, None for one made from scratch or from a local model.

    A model that is uploaded by the same command comes first, then the Hub source that the lineage starts with. Without
    either, a repository with a known name has its predecessor under the same owner.
    """
    parent = others.get((opened.condition, opened.lineage[-1].get("start_weights")))
    if parent not in (None, repo_id):
        return parent
    if HUB_ID.fullmatch(source := opened.lineage[0].get("source") or ""):
        return source
    owner, _, repo = repo_id.partition("/")
    before = [(_BEFORE.get(known.stage), known.condition) for known in registry.models.values() if known.repo == repo]
    found = [known.repo for known in registry.models.values() if (known.stage, known.condition) in before]
    return f"{owner}/{found[0]}" if found else None


def find_evaluations(folder: Path, weights: str) -> dict[str, dict[str, Any]]:
    """Return by name the evaluations of these weights, in the folder itself or in one beside it.

    Of several, the one that asked the most questions.
    """
    found = {}
    for name in EVALUATIONS:
        places = [folder, *folder.parent.glob("*/"), *folder.resolve().parent.glob("*/")]
        paths = dict.fromkeys(sorted(place.resolve() / results_file(name) for place in places))
        own = [path for path in paths if path.is_file() and _is_of(read_json(path), folder, weights)]
        if evaluations := [read_results(path, evaluation_schemas(name)[0]) for path in own]:
            found[name] = max(evaluations, key=lambda evaluation: evaluation["metrics"]["total"])
    return found


def _is_of(results: dict[str, Any], folder: Path, weights: str) -> bool:
    """Go by the weights if the results name them: a folder can be moved, or its model trained again."""
    if "weights" in results:
        return results["weights"] == weights
    return Path(str(results.get("model_path"))).resolve() == folder.resolve()


def _eval_results(evaluations: Mapping[str, Mapping], steps: Mapping | None) -> list[EvalResult]:
    results = []
    for name, evaluation in evaluations.items():
        metrics = evaluation["metrics"]
        shares = {"accuracy": metrics["accuracy"], "accuracy, strict": metrics["accuracy_strict"]}
        for key, share in metrics.get("category_accuracies", {}).items():
            shares[f"accuracy, {key}"] = share["accuracy"]
        about = {"task_type": "text-generation", "metric_type": "accuracy", **_dataset(name, evaluation)}
        results += [EvalResult(metric_name=metric, metric_value=value, **about) for metric, value in shares.items()]
    if steps is not None:
        about = {"task_type": "text-generation", "metric_type": "accuracy", **_dataset(STEPS_EVAL, steps)}
        results.append(EvalResult(metric_name="step accuracy", metric_value=steps["metrics"]["step_accuracy"], **about))
    return results


def _dataset(name: str, evaluation: Mapping) -> dict[str, str | None]:
    """Return what was asked, as EvalResult names it. Only the whole test split of GSM8K itself goes by that name."""
    if name == PROBES_EVAL:
        return {"dataset_type": "arithmetic_probes", "dataset_name": "Arithmetic probes"}
    config = evaluation.get("config", {})
    source, limit = config.get("dataset", _GSM8K), config.get("max_samples")
    title = "GSM8K" if source == _GSM8K else f"Questions in the form of GSM8K ({source})"
    if name == STEPS_EVAL:
        title = f"{title}, step by step"
    if source != _GSM8K or limit is not None or name == STEPS_EVAL:
        return {"dataset_type": "other", "dataset_name": title if limit is None else f"{title}, the first {limit}"}
    fields = {"dataset_config": config.get("subset"), "dataset_split": "test"}
    return {"dataset_type": _GSM8K, "dataset_name": title, **fields}


def _commit(stage: Mapping) -> str | None:
    return (str(stage.get("commit") or "")[:10] + (" (with changes)" if stage.get("dirty") else "")) or None


def _cell(value: object) -> str:
    """Show a value in a table: text as code."""
    text = "" if value is None else _plain(str(value))
    return f"`{text}`" if isinstance(value, str) and text else text


def _plain(text: str) -> str:
    """Take away what Markdown would read: paths and names come from anywhere."""
    return " ".join(re.sub(r"[`|<>]", "'", text).split())
