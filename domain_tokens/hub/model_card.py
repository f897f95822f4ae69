"""The page a model has on the Hub: where it comes from, how it was trained, what was measured, how to use it.

Made of the model folder's own files and of the evaluations beside it, so every figure on it was measured; nothing in
it changes from one upload to the next unless they do.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from domain_tokens.conditions import CONDITIONS
from domain_tokens.models.folder import OpenModel
from domain_tokens.prompt import prompt_text, question_conversation
from domain_tokens.runs.errors import InputError
from domain_tokens.runs.files import read_json
from domain_tokens.runs.names import EVALUATIONS, HUB_ID, PROBES_EVAL, RESOLVED_CONFIG, SFT_STAGES, results_file
from domain_tokens.runs.recipes import RegistryConfig

_GSM8K = "openai/gsm8k"

_QUESTION = "What is 7 times 8?"


def render_model_card(
    checkpoint: OpenModel, folder: Path, repo_id: str, license_id: str, others: Mapping, registry: RegistryConfig
) -> str:
    """The whole text of the card, front matter included.

    others: (condition, weights) to repository, of the models that go up in the same command. Raises InputError for a
    record or results that lack what the card tells.
    """
    try:
        return _model_card(checkpoint, folder, repo_id, license_id, _base_model(checkpoint, repo_id, others, registry))
    except (KeyError, TypeError, ValueError, AttributeError) as error:  # files that were written by something else
        raise InputError(
            f"{folder}: its record or results, or an evaluation beside it, lack what the model card tells "
            f"({type(error).__name__}: {error}); make them again"
        ) from error


def _model_card(checkpoint: OpenModel, folder: Path, repo_id: str, license_id: str, base_model: str | None) -> str:
    name = repo_id.rpartition("/")[2]
    evaluations = find_evaluations(folder, checkpoint.weights)
    results_name = SFT_STAGES.get(checkpoint.lineage[-1]["stage"])
    stages = [stage for stage in checkpoint.lineage if "dataset" in stage]
    datasets = [stage["dataset"] for stage in stages if HUB_ID.fullmatch(stage["dataset"])]
    data = ModelCardData(
        license=license_id,
        language="en",
        library_name="transformers",
        pipeline_tag="text-generation",
        base_model=base_model,
        datasets=list(dict.fromkeys(datasets)) or None,
        tags=["domain-tokens", "arithmetic", checkpoint.condition, *(["sft"] if stages else [])],
        model_name=name,
        eval_results=_eval_results(evaluations) or None,
    )
    sections = [
        f"---\n{data.to_yaml()}\n---",
        f"# {name}",
        _introduction(checkpoint, bool(stages)),
        _usage(checkpoint, repo_id, bool(stages)),
        _lineage(checkpoint),
    ]
    if results_name is not None:
        sections.append(_recipe(read_json(folder / results_name), folder))
    return "\n\n".join([*sections, _results(evaluations), _limits()]) + "\n"


def _base_model(checkpoint: OpenModel, repo_id: str, others: Mapping, registry: RegistryConfig) -> str | None:
    """The Hub id of the model this one was trained from, or None for one made from scratch or from a local model.

    A model that goes up along with it comes first, then the Hub source its lineage starts with. Without either, a
    repository that bears a known name has its predecessor under the same owner.
    """
    parent = others.get((checkpoint.condition, checkpoint.lineage[-1].get("start_weights")))
    if parent not in (None, repo_id):
        return parent
    if HUB_ID.fullmatch(source := checkpoint.lineage[0].get("source") or ""):
        return source
    owner, _, repo = repo_id.partition("/")
    before = {"sft_gsm8k": "sft_tulu", "sft_tulu": "pretrained"}
    for known in registry.models.values():
        if known.repo == repo:
            wanted = before.get(known.stage), known.condition
            for model in registry.models.values():
                if (model.stage, model.condition) == wanted:
                    return f"{owner}/{model.repo}"
    return None


def find_evaluations(folder: Path, weights: str) -> dict[str, dict[str, Any]]:
    """The evaluations of these very weights, in the folder itself or in one beside it, by name.

    Of several, the one that asked the most questions.
    """
    found = {}
    for name in EVALUATIONS:
        places = [folder, *folder.parent.glob("*/"), *folder.resolve().parent.glob("*/")]
        paths = dict.fromkeys(sorted(place.resolve() / results_file(name) for place in places))
        evaluations = [read_json(path) for path in paths if path.is_file()]
        if own := [evaluation for evaluation in evaluations if _is_of(evaluation, folder, weights)]:
            found[name] = max(own, key=lambda evaluation: evaluation["metrics"]["total"])
    return found


def _is_of(results: dict[str, Any], folder: Path, weights: str) -> bool:
    """By the weights where the results name them: a folder can be moved, or trained anew."""
    if "weights" in results:
        return results["weights"] == weights
    return Path(str(results.get("model_path"))).resolve() == folder.resolve()


def _eval_results(evaluations: dict[str, dict[str, Any]]) -> list[EvalResult]:
    results = []
    for name, evaluation in evaluations.items():
        metrics = evaluation["metrics"]
        figures = {"accuracy": metrics["accuracy"], "accuracy, strict": metrics["accuracy_strict"]}
        figures |= {
            f"accuracy, {key}": share["accuracy"] for key, share in metrics.get("category_accuracies", {}).items()
        }
        results += [
            EvalResult(
                task_type="text-generation",
                metric_type="accuracy",
                metric_name=metric,
                metric_value=value,
                **_dataset(name, evaluation),
            )
            for metric, value in figures.items()
        ]
    return results


def _dataset(name: str, evaluation: dict[str, Any]) -> dict[str, str | None]:
    """What was asked, in the fields of an EvalResult. Only the whole test split of GSM8K itself goes by that name."""
    if name == PROBES_EVAL:
        return {"dataset_type": "arithmetic_probes", "dataset_name": "Arithmetic probes"}
    config = evaluation.get("config", {})
    source, limit = config.get("dataset", _GSM8K), config.get("max_samples")
    title = "GSM8K" if source == _GSM8K else f"Questions in the form of GSM8K ({source})"
    if source != _GSM8K or limit is not None:
        return {"dataset_type": "other", "dataset_name": title if limit is None else f"{title}, the first {limit}"}
    fields = {"dataset_config": config.get("subset"), "dataset_split": "test"}
    return {"dataset_type": _GSM8K, "dataset_name": title, **fields}


def _introduction(checkpoint: OpenModel, is_trained: bool) -> str:
    size = checkpoint.model.num_parameters() / 1e6
    kind = "after supervised fine-tuning" if is_trained else "before any fine-tuning"
    return (
        f"A {checkpoint.model.config.model_type} causal language model of {size:.1f}M parameters and a context of "
        f"{checkpoint.context:,} tokens, {kind}, from an experiment on one question: does giving a language model its "
        "own tokens for domain facts make it better? The facts are the 45 products of the multiplication table, each "
        "one token: `<MUL_6_9_54>` stands for 6×9=54.\n\n"
        f"This model belongs to the condition **{checkpoint.condition}**: "
        f"{CONDITIONS[checkpoint.condition].about}. Vocabulary and architecture are the same in both."
    )


def _usage(checkpoint: OpenModel, repo_id: str, is_trained: bool) -> str:
    prompt = json.dumps(prompt_text(question_conversation(_QUESTION), checkpoint.tokenizer.eos_token))
    is_prompt = "is the prompt it was trained with" if is_trained else "is the prompt that fine-tuning teaches"
    return f"""## How to use it

The tokenizer's chat template {is_prompt}.

```python
from transformers import pipeline

chat = pipeline("text-generation", model="{repo_id}")
messages = [{{"role": "user", "content": "{_QUESTION}"}}]
reply = chat(messages, max_new_tokens=64, do_sample=False)[0]["generated_text"][-1]["content"]
```

Without the template, the prompt is `{prompt}`, with no space behind the last colon, and a reply ends at
`{checkpoint.tokenizer.eos_token}`. Fact tokens are ordinary tokens: decoding keeps them. Each means its product."""


def _lineage(checkpoint: OpenModel) -> str:
    lines = ["## Lineage", "", "| step | from | data | seed | facts injected | commit |", "|---|---|---|---|---|---|"]
    for stage in checkpoint.lineage:
        commit = str(stage.get("commit") or "")[:10] + (" (with changes)" if stage.get("dirty") else "")
        cells = (stage.get("stage"), stage.get("source") or stage.get("model_path"), stage.get("dataset"),
                 stage.get("seed"), stage.get("injected_mul_tokens"), commit or None)  # fmt: skip
        lines.append("| " + " | ".join(_cell(cell) for cell in cells) + " |")
    return "\n".join([*lines, "", f"Weights (sha256 over the safetensors files): `{checkpoint.weights}`"])


def _recipe(sft: dict[str, Any], folder: Path) -> str:
    figures = {
        "training rows": f"{sft['total_train_samples']:,}",
        "validation rows, of the training split": f"{sft['total_val_samples']:,}",
        "optimizer steps": f"{sft['steps']:,}" if "steps" in sft else None,
        "tokens that carried loss": f"{sft['tokens_trained']:,}",
        "training loss": f"{sft['train_loss']:.4f}",
        "validation loss": "none" if sft["eval_loss"] is None else f"{sft['eval_loss']:.4f}",
        "seconds": f"{sft['train_runtime']:,.0f}",
        "device": sft["environment"].get("device"),
    }
    lines = ["## Recipe of the last stage", "", "| | |", "|---|---|"]
    lines += [f"| {name} | {value} |" for name, value in figures.items() if value is not None]
    if (folder / RESOLVED_CONFIG).is_file():
        recipe = (folder / RESOLVED_CONFIG).read_text(encoding="utf-8").strip()
        fence = "`" * max(3, 1 + max(map(len, re.findall("`+", recipe)), default=0))
        lines += ["", f"{fence}yaml", recipe, fence]
    return "\n".join(lines)


def _results(evaluations: dict[str, dict[str, Any]]) -> str:
    if not evaluations:
        return "## Results\n\nThis model has not been evaluated."
    lines = ["## Results", "", "| evaluation | questions | accuracy | strict | ended by end-of-text | facts a reply |",
             "|---|---|---|---|---|---|"]  # fmt: skip
    for name, evaluation in evaluations.items():
        metrics = evaluation["metrics"]
        shares = f"{metrics['accuracy']:.1%} | {metrics['accuracy_strict']:.1%} | {metrics['finished_rate']:.1%}"
        title = _plain(_dataset(name, evaluation)["dataset_name"])
        lines.append(f"| {title} | {metrics['total']} | {shares} | {metrics['mul_tokens_per_response']:.2f} |")
        for category, share in metrics.get("category_accuracies", {}).items():
            lines.append(f"| … {category} | {share['total']} | {share['accuracy']:.1%} | | | |")
    version = next(iter(evaluations.values()))["eval_version"]
    return "\n".join([
        *lines, "",
        f"Greedy decoding, `eval_version` {version}. *Accuracy* reads the number behind `####`, else behind "
        '"The answer is", else the last one; *strict* only the one behind `####`. One run with one seed: a difference '
        "between two such figures means little without an interval.",
    ])  # fmt: skip


def _limits() -> str:
    return (
        "## Limits\n\n"
        "Made to compare two ways of training, not to be relied on: a model of this size makes many mistakes, also in "
        "arithmetic, invents facts, and repeats whatever its training data holds. English only, nothing was done for "
        "safety, and a fact token says nothing about whether the product was the right one to write."
    )


def _cell(value: object) -> str:
    """A value in a table: text as code."""
    text = "" if value is None else _plain(str(value))
    return f"`{text}`" if isinstance(value, str) and text else text


def _plain(text: str) -> str:
    """Without what Markdown would read: paths and names come from anywhere."""
    return " ".join(re.sub(r"[`|<>]", "'", text).split())
