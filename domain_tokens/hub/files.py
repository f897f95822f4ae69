"""Model folders to and from the Hub: which files go up and come down, and what is checked on the way."""

import hashlib
import re
from pathlib import Path

from huggingface_hub.hf_api import RepoFile

from domain_tokens.runs.names import GSM8K_SFT_RESULTS, RECORD_NAME, RESOLVED_CONFIG, TULU_RESULTS

CARD_NAME = "README.md"

# What a user of a model needs, and all that ever goes up or comes down: no optimizer, no logs, nothing pickled, and
# no file that happened to lie in the folder.
PUBLISHED_FILES = (
    "config.json", "generation_config.json", "model.safetensors",
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "vocab.json", "merges.txt", "tokenizer.model", "chat_template.jinja",
    RECORD_NAME, TULU_RESULTS, GSM8K_SFT_RESULTS, RESOLVED_CONFIG,
)  # fmt: skip
SHARD = re.compile(r"model\.safetensors\.index\.json|model-\d+-of-\d+\.safetensors")
CHECKPOINT_FILE = re.compile(r"checkpoint-\d+/[\w-][\w.-]*")
CHECKPOINT_NAME = re.compile(r"checkpoint-\d+")

START_STAGES = ("prepare_base", "start")


def is_here(folder: Path) -> bool:
    """Does the folder hold a model? Downloads and training runs put it there whole."""
    return (folder / "config.json").is_file() and any(folder.glob("*.safetensors"))


def size_of(content: Path | bytes) -> int:
    return len(content) if isinstance(content, bytes) else content.stat().st_size


def is_same(content: Path | bytes, file: RepoFile) -> bool:
    """Compare by what the Hub knows a file by: sha256 for large files (LFS), git's blob sha1 for the others."""
    if size_of(content) != file.size:
        return False
    if file.lfs is None:
        data = content if isinstance(content, bytes) else content.read_bytes()
        return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest() == file.blob_id
    if isinstance(content, bytes):
        return hashlib.sha256(content).hexdigest() == file.lfs.sha256
    with content.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest() == file.lfs.sha256
