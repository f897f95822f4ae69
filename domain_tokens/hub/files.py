"""The files of a model that travel to and from the Hub, and comparing them with what the Hub has."""

import re
from io import BytesIO
from itertools import islice
from pathlib import Path

from huggingface_hub import HfApi
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils.sha import git_hash, sha_fileobj

from domain_tokens.runs.errors import RunError
from domain_tokens.runs.names import RECORD_NAME, RESOLVED_CONFIG, SFT_STAGES, UNFINISHED

CARD_NAME = "README.md"

# All that is ever uploaded or downloaded: what a user of a model needs. No optimizer, no logs, nothing pickled, and no
# file that happened to lie in the folder.
PUBLISHED_FILES = (
    "config.json", "generation_config.json", "model.safetensors",
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "vocab.json", "merges.txt", "tokenizer.model", "chat_template.jinja",
    RECORD_NAME, *SFT_STAGES.values(), RESOLVED_CONFIG,
)  # fmt: skip
SHARD = re.compile(r"model\.safetensors\.index\.json|model-\d+-of-\d+\.safetensors")
CHECKPOINT_FILE = re.compile(r"checkpoint-\d+/[\w-][\w.-]*")
CHECKPOINT_NAME = re.compile(r"checkpoint-\d+")

START_STAGES = ("prepare_base", "start")
_MOST_FILES = 10_000  # in a repository; a listing may go on for ever


def is_here(folder: Path) -> bool:
    """Return whether the folder holds a model. Downloads and training runs put it there whole."""
    has_model = (folder / "config.json").is_file() and any(folder.glob("*.safetensors"))
    return has_model and not (folder / UNFINISHED).exists()


def list_files(api: HfApi, repo_id: str, **where) -> dict[str, RepoFile]:
    """Return a repository's files by their path. Raises RunError for a listing without end."""
    entries = list(islice(api.list_repo_tree(repo_id, **where), _MOST_FILES + 1))
    if len(entries) > _MOST_FILES:
        raise RunError(f"{repo_id} lists more than {_MOST_FILES:,} files, so it is no model; check the name")
    return {entry.path: entry for entry in entries if isinstance(entry, RepoFile)}


def size_of(content: Path | bytes) -> int:
    return len(content) if isinstance(content, bytes) else content.stat().st_size


def is_same(content: Path | bytes, file: RepoFile) -> bool:
    """Compare by what the Hub knows a file by: sha256 for large files (LFS), git's blob sha1 for the others."""
    if size_of(content) != file.size:
        return False
    if file.lfs is None:
        return git_hash(content if isinstance(content, bytes) else content.read_bytes()) == file.blob_id
    with BytesIO(content) if isinstance(content, bytes) else content.open("rb") as opened:
        return sha_fileobj(opened).hex() == file.lfs.sha256


def weight_files(folder: Path) -> list[str]:
    """Return the names of the files that hold a folder's weights: one, or an index and its shards."""
    if (folder / "model.safetensors").is_file():
        return ["model.safetensors"]
    return sorted(path.name for path in folder.iterdir() if SHARD.fullmatch(path.name))
