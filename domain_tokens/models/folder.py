"""Opening and saving model folders, and refusing those whose numbers could not be trusted."""

import hashlib
import json
import logging
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.activations import GELUTanh, NewGELUActivation
from transformers.utils import logging as transformers_logging

from domain_tokens.conditions import CONDITION_NAMES, CONDITIONS
from domain_tokens.facts import FACT_TOKENS
from domain_tokens.models.vocabulary import context_length, verify_vocabulary
from domain_tokens.prompt import CHAT_TEMPLATE
from domain_tokens.runs.errors import InputError, RunError
from domain_tokens.runs.files import read_json, shown_path, shown_source, write_json
from domain_tokens.runs.folders import check_model_folder
from domain_tokens.runs.names import RECORD_NAME

# Said when two checkpoints are written within a second; their numbers order them anyway.
logging.getLogger("transformers.trainer_utils").setLevel(logging.ERROR)

# Said of a model type it does not know, and then it raises an error.
logging.getLogger("transformers.configuration_utils").setLevel(logging.ERROR)

# What is missing or does not fit when a model is loaded becomes one error here, in place of a table.
# (A filter: that module takes its logger's level for a sign to check how layers are sharded.)
logging.getLogger("transformers.modeling_utils").addFilter(lambda record: "LOAD REPORT" not in record.getMessage())

# Bars that flash by while a file is read or written; a run's own progress is shown by the scripts.
transformers_logging.disable_progress_bar()


@dataclass
class OpenModel:
    """A model folder, opened and checked."""

    path: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    condition: str
    lineage: list[dict[str, Any]]  # every stage the model went through, the first one first
    weights: str  # sha256 over its safetensors files

    @property
    def fact_ids(self) -> frozenset[int]:
        return frozenset(self.tokenizer.convert_tokens_to_ids(list(FACT_TOKENS)))

    @property
    def context(self) -> int:
        """How many positions the model has."""
        return context_length(self.model, self.tokenizer, self.path)


def open_model(path: str, condition: str | None, dtype: torch.dtype = torch.float32) -> OpenModel:
    """Load a folder for a condition. The folder's own record decides; `condition` is for folders without one.

    Raises InputError for a missing or incomplete folder, a contradicting condition, or a vocabulary without the
    fact tokens. Only safetensors are loaded, and no code a folder brings along is ever run.
    """
    folder = Path(path)
    weights = weights_digest(folder)
    condition, lineage = _condition(folder, condition)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        model, report = AutoModelForCausalLM.from_pretrained(
            folder, dtype=dtype, use_safetensors=True, trust_remote_code=False, output_loading_info=True
        )
    except Exception as error:  # whatever a foreign config.json can make the library stumble over
        raise InputError(f"model folder {path} cannot be loaded ({reason(error)}); export or fetch it again") from error
    if absent := missing_weights(report):
        raise InputError(f"model folder {path} lacks weights, {absent[0]} among {len(absent)}; export it again")
    if not all(parameter.isfinite().all() for parameter in model.parameters()):
        raise InputError(f"model folder {path} holds weights that are no finite numbers; train or fetch it again")
    verify_vocabulary(tokenizer, model, path, condition)
    model.loss_type = "ForCausalLM"  # what GPT-2 falls back to anyway, with a warning
    fuse_activations(model)
    tokenizer.chat_template = CHAT_TEMPLATE
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    model.generation_config = _plain_generation(tokenizer)
    return OpenModel(shown_path(folder), model, tokenizer, condition, lineage, weights)


def reason(error: Exception) -> str:
    """Why a library could not read a model, in a line."""
    text = " ".join(str(error).split())
    if "trust_remote_code" in text:
        return "it is a model of its own code, which is never run"
    return f"{type(error).__name__}: {text[:300]}"


def fuse_activations(model) -> None:
    """Compute GPT-2's GELU in one operation in place of eight: the same formula, `gelu_pytorch_tanh` in configs."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, NewGELUActivation):
                setattr(module, name, GELUTanh())


def missing_weights(loading_report: dict[str, Any]) -> list[str]:
    """What `from_pretrained` did not find or could not fit; it fills these with random numbers and goes on."""
    return sorted({*loading_report["missing_keys"], *map(str, loading_report["mismatched_keys"])})


def _plain_generation(tokenizer) -> GenerationConfig:
    """Nothing but where to stop. A repetition penalty inherited from somebody's model would bend greedy replies."""
    return GenerationConfig(
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    )


def weights_digest(folder: Path) -> str:
    """sha256 over the safetensors files a folder is loaded from: which weights a figure belongs to."""
    check_model_folder(folder)
    if not (folder / "config.json").is_file():
        raise InputError(f"model folder {folder} holds no config.json, so it is no model; check the path")
    files = [folder / "model.safetensors"]
    if not files[0].is_file():
        files = sorted(folder.glob("model-*-of-*.safetensors"))
        _check_index(folder, {file.name for file in files})
    if not files:
        raise InputError(
            f"model folder {folder} holds no model.safetensors (pickled weights are never loaded); "
            "convert it with scripts/prepare_base.py"
        )
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as opened:
            while block := opened.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def _check_index(folder: Path, shards: set[str]) -> None:
    """The index may only lead to the shards beside it: not out of the folder, and not to a pickle."""
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        return
    named = read_json(index).get("weight_map")
    named = set(map(str, named.values())) if isinstance(named, dict) else set()
    if named != shards:
        what = f"names {min(named - shards)}" if named - shards else f"does not name {min(shards - named)}"
        raise InputError(
            f"model folder {folder}: {index.name} {what}, expected the files beside it; fetch or export the model again"
        )


def save_model(
    folder: Path, model, tokenizer, condition: str, lineage: list[dict[str, Any]], weights: dict | None = None
) -> None:
    """Write weights, tokenizer with chat template and record; whole files under temporary names, then renamed.

    weights: whole tensors by name, of a model that holds a share of them only.
    """
    temporary = folder / ".writing"
    model.generation_config = _plain_generation(tokenizer)
    try:
        shutil.rmtree(temporary, ignore_errors=True)  # of a run that was killed here
        model.save_pretrained(temporary, state_dict=weights)
        tokenizer.save_pretrained(temporary)
        write_json(temporary / RECORD_NAME, {"condition": condition, "lineage": lineage})
        (folder / RECORD_NAME).unlink(missing_ok=True)
        for file in sorted(temporary.iterdir(), key=lambda file: file.name == RECORD_NAME):  # the record last
            file.replace(folder / file.name)
    except (SafetensorError, OSError) as error:
        raise RunError(f"{folder}: the model cannot be written ({error}); make room, then --resume") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _condition(folder: Path, wanted: str | None) -> tuple[str, list[dict[str, Any]]]:
    if not (folder / RECORD_NAME).is_file():
        if wanted is None:
            raise InputError(f"{folder} does not say its condition; give --condition {CONDITION_NAMES}")
        return wanted, [{"stage": "start", "source": shown_source(str(folder))}]
    record = read_json(folder / RECORD_NAME)
    condition, lineage = record.get("condition"), record.get("lineage")
    if condition not in CONDITIONS:
        raise InputError(f"{folder / RECORD_NAME} has condition {json.dumps(condition)}, expected {CONDITION_NAMES}")
    if not isinstance(lineage, list) or not lineage or not all(map(_is_stage, lineage)):
        raise InputError(f"{folder / RECORD_NAME} has no lineage of stages, each with its name; make the model again")
    if wanted not in (None, condition):
        raise InputError(
            f"--condition {wanted} contradicts {folder}, which is a {condition} model; give "
            f"--condition {condition}, or another model"
        )
    return condition, lineage


def _is_stage(entry: Any) -> bool:
    return isinstance(entry, dict) and isinstance(entry.get("stage"), str)
