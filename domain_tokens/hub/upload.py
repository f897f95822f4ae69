"""Models to the Hub: what is checked before, which files are uploaded, and one commit that makes it so."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

from domain_tokens.hub.client import hub_errors, with_retries
from domain_tokens.hub.files import (
    CARD_NAME,
    CHECKPOINT_NAME,
    PUBLISHED_FILES,
    SHARD,
    START_STAGES,
    is_same,
    list_files,
    weight_files,
)
from domain_tokens.prompt import CHAT_TEMPLATE
from domain_tokens.runs.errors import InputError, RunError
from domain_tokens.runs.names import RECORD_NAME, SFT_STAGES, UNFINISHED
from domain_tokens.runs.results_schema import TrainingResults
from domain_tokens.runs.validation import read_results

if TYPE_CHECKING:  # torch comes with it, and listing models needs none
    from domain_tokens.models.folder import OpenModel


def check_publishable(path: str) -> "OpenModel":
    """Open a folder that is to be uploaded. InputError for all but a finished model with its record and results."""
    from domain_tokens.models.folder import open_model

    folder = Path(path).expanduser()
    if not path or not folder.is_dir():
        raise InputError(f"model folder {path!r} does not exist; check --model-path")
    if CHECKPOINT_NAME.fullmatch(folder.resolve().name) or (folder / "trainer_state.json").exists():
        raise InputError(f"{path} is a checkpoint of a running training; give the folder of the finished model")
    if (folder / UNFINISHED).exists():
        raise InputError(f"{path} holds an interrupted run; finish it with --resume first")
    weights = weight_files(folder)[:1] or ["model.safetensors"]
    for name in ("config.json", *weights, "tokenizer.json", "tokenizer_config.json", RECORD_NAME):
        if not (folder / name).is_file():
            remedy = "scripts/prepare_base.py makes a start model, the sft scripts a trained one"
            raise InputError(f"{path} holds no {name}, so it is no complete model; {remedy}")
    checkpoint = open_model(str(folder), None)
    stage = checkpoint.lineage[-1]["stage"]
    if stage in START_STAGES:
        return checkpoint
    if stage not in SFT_STAGES:
        known = ", ".join((*START_STAGES, *SFT_STAGES))
        raise InputError(f"{path}: {RECORD_NAME} ends with stage {stage!r}, expected one of {known}")
    results_name = SFT_STAGES[stage]
    if not (folder / results_name).is_file():
        raise InputError(f"{path} holds no {results_name}, so its {stage} is not finished; finish it with --resume")
    measured = read_results(folder / results_name, TrainingResults).get("weights", checkpoint.weights)
    if measured != checkpoint.weights:
        raise InputError(f"{path}: model.safetensors is not the one {results_name} was written for; train it again")
    template = folder / "chat_template.jinja"
    if not template.is_file() or template.read_text(encoding="utf-8", errors="replace") != CHAT_TEMPLATE:
        raise InputError(f"{path}: chat_template.jinja is not the prompt the model was trained with; train it again")
    return checkpoint


def files_to_publish(checkpoint: "OpenModel", folder: Path, card: str) -> dict[str, Path | bytes]:
    """Return what is uploaded, by its path in the repository. The card is not written to the folder."""
    others = set(SFT_STAGES.values()) - {SFT_STAGES.get(checkpoint.lineage[-1]["stage"])}  # of an earlier stage
    names = dict.fromkeys([*PUBLISHED_FILES, *weight_files(folder)])
    present = [name for name in names if name not in others and (folder / name).is_file()]
    return {CARD_NAME: card.encode()} | {name: folder / name for name in present}


def upload_model(api: HfApi, repo_id: str, files: Mapping[str, Path | bytes], private: bool, message: str) -> list[str]:
    """Make the repository hold these model files and no others, in one commit. Returns what had to go up or away."""
    with hub_errors(f"uploading to {repo_id}"):
        with_retries(api.create_repo, repo_id, private=private or None, exist_ok=True)
        info = with_retries(api.model_info, repo_id)
    if private and info.private is False:
        raise RunError(
            f"{repo_id} exists and is public, so nothing was uploaded; "
            "make it private in its settings on the Hub, or leave out --private"
        )
    with hub_errors(f"uploading to {repo_id}"):
        there = list_files(api, repo_id)
        changed = [name for name, content in files.items() if name not in there or not is_same(content, there[name])]
        stale = [name for name in there if (name in PUBLISHED_FILES or SHARD.fullmatch(name)) and name not in files]

        def commit() -> None:
            added = [CommitOperationAdd(name, files[name]) for name in changed]
            removed = [CommitOperationDelete(name) for name in stale]
            api.create_commit(repo_id, [*added, *removed], commit_message=message)

        if changed or stale:
            with_retries(commit)
    return changed + stale
