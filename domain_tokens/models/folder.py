"""Model folders: opening them, refusing those whose numbers could not be trusted, and saving."""

import hashlib
import json
import logging
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.activations import GELUTanh, NewGELUActivation
from transformers.utils import logging as transformers_logging

from domain_tokens.facts import FACT_TOKENS
from domain_tokens.models.checks import check_sizes, check_tokenizer
from domain_tokens.models.decoding import find_decoding
from domain_tokens.models.record import read_record
from domain_tokens.models.vocabulary import context_length, verify_vocabulary
from domain_tokens.prompt import CHAT_TEMPLATE
from domain_tokens.runs.errors import InputError, RunError
from domain_tokens.runs.files import read_json, shown_path, write_json
from domain_tokens.runs.folders import check_model_folder
from domain_tokens.runs.names import RECORD_NAME
from domain_tokens.runs.results_schema import ModelRecord

# Silenced: a warning about two checkpoints within a second, and one about unknown model types, which raise an error.
for _name in ("transformers.trainer_utils", "transformers.configuration_utils"):
    logging.getLogger(_name).setLevel(logging.ERROR)

# `load_causal_lm` raises one error for what is missing, so the table of it is not shown. A filter, because that module
# reads its logger's level to decide whether to check how layers are sharded.
logging.getLogger("transformers.modeling_utils").addFilter(lambda record: "LOAD REPORT" not in record.getMessage())

transformers_logging.disable_progress_bar()  # for reading and writing files, which takes a moment

# What a library writes of itself and of loading.
_NO_ARCHITECTURE = ("transformers_version", "_name_or_path", "dtype", "torch_dtype", "use_cache")
_NUMBER = re.compile(r"\d+")


@dataclass
class OpenModel:
    """A model folder, opened and checked."""

    path: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    condition: str
    lineage: list[dict[str, Any]]  # every stage the model went through, the first one first
    weights: str  # sha256 over its safetensors files
    architecture: str  # sha256 over its config
    decoding: str = "batched"  # the fastest way of models/decoding.py that is right for it

    @property
    def fact_ids(self) -> frozenset[int]:
        return frozenset(self.tokenizer.convert_tokens_to_ids(list(FACT_TOKENS)))

    @property
    def context(self) -> int:
        """The number of positions the model has."""
        return context_length(self.model, self.tokenizer, self.path)


def open_model(path: str, condition: str | None, dtype: torch.dtype = torch.float32) -> OpenModel:
    """Load and check a folder. Its own record decides the condition; `condition` is for folders without one.

    Only safetensors are loaded, and no code a folder brings along is ever run. Raises InputError for a missing or
    incomplete folder, a contradicting condition, weights that are not finite, or a vocabulary without the fact tokens.
    """
    folder = Path(path)
    weights, architecture = weights_digest(folder), architecture_digest(folder)
    condition, lineage = read_record(folder, condition)
    with reading(f"model folder {path}"):
        check_tokenizer(folder, f"model folder {path}")
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        model = load_causal_lm(folder, dtype, f"model folder {path}")
    tokenizer.chat_template = CHAT_TEMPLATE
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    model.loss_type = "ForCausalLM"  # GPT-2 would fall back to it anyway, with a warning
    fuse_activations(model)
    model.generation_config = _plain_generation(tokenizer)
    decoding = verify_model(model, tokenizer, path, condition)
    return OpenModel(shown_path(folder), model, tokenizer, condition, lineage, weights, architecture, decoding)


def verify_model(model, tokenizer, path: str | Path, condition: str | None) -> str:
    """Return how the model decodes, see `find_decoding`. condition: as in `verify_vocabulary`.

    Raises InputError for weights that are not finite, a vocabulary without the facts, and what `find_decoding` refuses.
    """
    if not all(parameter.isfinite().all() for parameter in model.parameters()):
        raise InputError(f"model folder {path} holds weights that are no finite numbers; train or fetch it again")
    verify_vocabulary(tokenizer, model, path, condition)
    return find_decoding(model, tokenizer, str(path))


def load_causal_lm(source: str | Path, dtype: torch.dtype, what: str) -> PreTrainedModel:
    """Load a causal language model from safetensors. what: names the source in errors.

    Raises InputError for weights that are missing or of another shape, where `from_pretrained` makes up random ones,
    and for weights of more layers than the config has, which it leaves out.
    """
    if Path(source).is_dir():
        check_sizes(Path(source), what)
    model, report = AutoModelForCausalLM.from_pretrained(
        source, dtype=dtype, use_safetensors=True, trust_remote_code=False, output_loading_info=True,
        ignore_mismatched_sizes=True,
    )  # fmt: skip
    check_loaded(report, what)
    own = {_NUMBER.sub("#", name) for name in model.state_dict()}
    if surplus := sorted(name for name in report["unexpected_keys"] if _NUMBER.sub("#", name) in own):
        raise InputError(f"{what} holds {surplus[0]}, which its config has no layer for; export it again")
    return model


def check_loaded(report: Mapping[str, Any], what: str) -> None:
    """Raise InputError, naming `what`, for weights that `from_pretrained` reports as made up."""
    if absent := sorted(report["missing_keys"]):
        raise InputError(f"{what} lacks weights, {absent[0]} among {len(absent)}; export it again")
    for name, found, expected in sorted(report["mismatched_keys"]):
        shapes = f"the shape {tuple(found)}, but its config makes it {tuple(expected)}"
        raise InputError(f"{what}: {name} has {shapes}; export it again")


@contextmanager
def reading(what: str) -> Iterator[None]:
    """Turn whatever a foreign file makes the libraries stumble over into one InputError that names `what`."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        text = " ".join(str(error).split())
        reason = f"{type(error).__name__}: {text[:300]}"
        if "trust_remote_code" in text:
            reason = "it is a model of its own code, which is never run"
        raise InputError(f"{what} cannot be loaded ({reason}); export or fetch it again") from error


def fuse_activations(model) -> None:
    """Compute GPT-2's tanh form of GELU in one operation instead of eight."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, NewGELUActivation):
                setattr(module, name, GELUTanh())


def _plain_generation(tokenizer) -> GenerationConfig:
    """Return where to stop and nothing else: a source's repetition penalty would bend greedy replies."""
    return GenerationConfig(
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    )


def weights_digest(folder: Path) -> str:
    """Return the sha256 over the folder's safetensors files, which says what weights a figure belongs to.

    Raises InputError for a folder that is no model, or whose index leads out of it.
    """
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
        with file.open("rb") as content:
            hashlib.file_digest(content, lambda: digest)
    return digest.hexdigest()


def architecture_digest(folder: Path) -> str:
    """Return the sha256 of what config.json says of the computation: with another activation, weights are others."""
    config = read_json(folder / "config.json")
    told = {key: value for key, value in config.items() if key not in _NO_ARCHITECTURE}
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def _check_index(folder: Path, shards: set[str]) -> None:
    """Raise InputError for an index that leads anywhere but to the shards beside it: out of the folder, to a pickle."""
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
    folder: Path,
    model,
    tokenizer,
    condition: str,
    lineage: list[dict[str, Any]],
    weights: dict | None = None,
    may_start: list[str] | None = None,
    check: Callable[[Path], Any] = lambda written: None,
) -> Any:
    """Write weights, tokenizer with chat template, and last the record; each file appears whole or not at all.

    weights: whole tensors by name, where `model` holds only a share of them. may_start: of a start model, the
    conditions that may train from it. check: called with the folder where the files lie before they take their place;
    its result is returned, and if it raises an error, none of them does.
    """
    temporary = folder / ".writing"
    model.generation_config = _plain_generation(tokenizer)
    if model.config.model_type == "gpt2":
        model.config.n_ctx = model.config.n_positions  # llama.cpp's converter asks for it
    try:
        shutil.rmtree(temporary, ignore_errors=True)  # left by a killed run
        model.save_pretrained(temporary, state_dict=weights)
        tokenizer.save_pretrained(temporary)
        # The class that reads tokenizer.json as it stands, by the name that transformers 4 knows too. Its inputs must
        # be said with it: by default it gives token types, which GPT-2 would add to its embeddings.
        kind = {"tokenizer_class": "PreTrainedTokenizerFast", "model_input_names": tokenizer.model_input_names}
        write_json(temporary / "tokenizer_config.json", read_json(temporary / "tokenizer_config.json") | kind)
        record: ModelRecord = {"condition": condition, "lineage": lineage}
        if may_start is not None:
            record["may_start"] = may_start
        write_json(temporary / RECORD_NAME, record)
        checked = check(temporary)
        (folder / RECORD_NAME).unlink(missing_ok=True)
        for old in folder.glob("*.safetensors*"):  # of a model in several files, say, which this one replaces
            if not (temporary / old.name).exists():
                old.unlink()
        for file in sorted(temporary.iterdir(), key=lambda file: file.name == RECORD_NAME):  # the record last
            file.replace(folder / file.name)
        return checked
    except (SafetensorError, OSError) as error:
        raise RunError(f"{folder}: the model cannot be written ({error}); make room, then --resume") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
