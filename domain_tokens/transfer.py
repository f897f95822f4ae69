"""Model folders to and from the Hub: which files go up and come down, and what is checked on the way."""

import hashlib
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import filelock
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, hf_hub_url
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError
from huggingface_hub.file_download import http_get
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils import WeakFileLock, build_hf_headers
from tqdm import tqdm

from domain_tokens.errors import InputError, RunError
from domain_tokens.hub import hub_errors, patiently
from domain_tokens.prompt import CHAT_TEMPLATE
from domain_tokens.results import (
    GSM8K_SFT_RESULTS,
    RECORD_NAME,
    RESOLVED_CONFIG,
    TULU_RESULTS,
    UNFINISHED,
    read_json,
    write_json,
)

if TYPE_CHECKING:  # torch comes with it, and listing models needs none
    from domain_tokens.checkpoints import Checkpoint

CARD_NAME = "README.md"
# What a user of a model needs, and all that ever goes up or comes down: no optimizer, no logs, nothing pickled, and
# no file that happened to lie in the folder.
PUBLISHED_FILES = (
    "config.json", "generation_config.json", "model.safetensors",
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "vocab.json", "merges.txt", "tokenizer.model", "chat_template.jinja",
    RECORD_NAME, TULU_RESULTS, GSM8K_SFT_RESULTS, RESOLVED_CONFIG,
)  # fmt: skip
_SHARD = re.compile(r"model\.safetensors\.index\.json|model-\d+-of-\d+\.safetensors")
_CHECKPOINT_FILE = re.compile(r"checkpoint-\d+/[\w-][\w.-]*")
_CHECKPOINT_NAME = re.compile(r"checkpoint-\d+")
# The results file a stage ends with; a start model has none.
RESULTS_OF = {"sft_tulu": TULU_RESULTS, "sft_gsm8k": GSM8K_SFT_RESULTS}
START_STAGES = ("prepare_base", "start")
_LOCK, _LOCK_WAIT = ".lock", 1  # seconds


class Remote(NamedTuple):
    """A repository at one commit, and those of its files that make the model."""

    repo_id: str
    commit: str
    files: list[RepoFile]

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files)


def look_up(api: HfApi, repo_id: str, revision: str | None = None, include_checkpoints: bool = False) -> Remote | None:
    """A repository's model files at a revision (default: the newest), or None where there is no such thing."""
    with hub_errors(f"looking up {repo_id}"):
        try:
            info = patiently(api.model_info, repo_id, revision=revision)
        except (RepositoryNotFoundError, RevisionNotFoundError) as error:
            if isinstance(error, GatedRepoError):  # it is there, and its owner can open it
                raise
            return None
        entries = api.list_repo_tree(repo_id, recursive=True, revision=info.sha)
        files = {entry.path: entry for entry in entries if isinstance(entry, RepoFile)}
    wanted = [*PUBLISHED_FILES, CARD_NAME]
    if "model.safetensors" not in files:  # other people's models may come in several files
        wanted += [path for path in files if _SHARD.fullmatch(path)]
    if include_checkpoints:
        wanted += [path for path in files if _CHECKPOINT_FILE.fullmatch(path)]
    return Remote(
        repo_id, info.sha, sorted((files[path] for path in wanted if path in files), key=lambda file: file.size)
    )


def is_here(folder: Path) -> bool:
    """Does the folder hold a model? Downloads and training runs put it there whole."""
    return (folder / "config.json").is_file() and any(folder.glob("*.safetensors"))


def fetch(remote: Remote, folder: Path, condition: str) -> str:
    """Download a model, check it, and only then give the folder its name. Returns the condition it says it has.

    Files land in `.{name}.downloading` beside it. What has come there is kept when a download is interrupted, to the
    block, and the next one goes on. A folder of that name gives way to the new one at the very end. condition: for a
    start model of other makers, which does not say its own.
    """
    arriving = folder.with_name(f".{folder.name}.downloading")
    with hub_errors(f"fetching {remote.repo_id}"):
        arriving.mkdir(parents=True, exist_ok=True)
        try:
            with WeakFileLock(arriving / _LOCK, timeout=_LOCK_WAIT):
                for file in remote.files:
                    _download(remote, file, arriving)
                _remove_strangers(arriving, remote)
                if not (arriving / RECORD_NAME).exists():
                    lineage = [{"stage": "start", "source": remote.repo_id, "revision": remote.commit}]
                    write_json(arriving / RECORD_NAME, {"condition": condition, "lineage": lineage})
                recorded = _check_fetched(remote, arriving)
        except filelock.Timeout:
            raise RunError(f"another download to {folder} is running; wait for it to end") from None
        (arriving / _LOCK).unlink(missing_ok=True)
        replaced = folder.with_name(f".{folder.name}.replaced")
        _remove(replaced)  # left by a download that was stopped right here
        if folder.exists() or folder.is_symlink():
            folder.rename(replaced)
        arriving.rename(folder)
        _remove(replaced)
    return recorded


def _download(remote: Remote, file: RepoFile, folder: Path) -> None:
    """Fetch one file, going on where an earlier try ended, and take it only with the right checksum."""
    target = folder / file.path
    if target.is_file() and _is_same(target, file):
        return
    part = target.with_name(f"{target.name}.{file.blob_id}.part")
    part.parent.mkdir(parents=True, exist_ok=True)
    url = hf_hub_url(remote.repo_id, file.path, revision=remote.commit)

    def go_on() -> None:
        with part.open("ab") as opened:
            have = opened.tell()
            http_get(
                url, opened, resume_size=have, headers=build_hf_headers(), expected_size=file.size,
                displayed_filename=file.path, tqdm_class=_Bar,
            )  # fmt: skip

    patiently(go_on)
    if not _is_same(part, file):
        part.unlink()
        raise RunError(
            f"{remote.repo_id}: {file.path} came damaged (its checksum is wrong); give the same command again"
        )
    part.replace(target)


def _check_fetched(remote: Remote, folder: Path) -> str:
    """Open the model and return the condition it has. A folder that cannot be used is removed again."""
    from domain_tokens.checkpoints import open_checkpoint

    try:
        return open_checkpoint(str(folder), None).condition
    except InputError as error:
        _remove(folder)
        raise RunError(str(error).replace(str(folder), remote.repo_id)) from error


def _remove_strangers(folder: Path, remote: Remote) -> None:
    """Files of an earlier download that was interrupted, from a revision that had others."""
    expected = {folder / file.path for file in remote.files} | {folder / _LOCK}
    for path in folder.rglob("*"):
        if path.is_file() and path not in expected:
            path.unlink()


def _remove(path: Path) -> None:
    """Whatever it is: a folder, a file, a link, or nothing."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def check_publishable(path: str) -> "Checkpoint":
    """Open a folder that is to go up. InputError for anything but a finished model with its record and results."""
    from domain_tokens.checkpoints import open_checkpoint

    folder = Path(path).expanduser()
    if not path or not folder.is_dir():
        raise InputError(f"model folder {path!r} does not exist; check --model-path")
    if _CHECKPOINT_NAME.fullmatch(folder.resolve().name) or (folder / "trainer_state.json").exists():
        raise InputError(f"{path} is a checkpoint of a running training; give the folder of the finished model")
    if (folder / UNFINISHED).exists():
        raise InputError(f"{path} holds an interrupted run; finish it with --resume first")
    for name in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", RECORD_NAME):
        if not (folder / name).is_file():
            remedy = "scripts/prepare_base.py makes a start model, the sft scripts a trained one"
            raise InputError(f"{path} holds no {name}, so it is no complete model; {remedy}")
    checkpoint = open_checkpoint(str(folder), None)
    stage = checkpoint.lineage[-1]["stage"]
    if stage in START_STAGES:
        return checkpoint
    if stage not in RESULTS_OF:
        known = ", ".join((*START_STAGES, *RESULTS_OF))
        raise InputError(f"{path}: {RECORD_NAME} ends with stage {stage!r}, expected one of {known}")
    results_name = RESULTS_OF[stage]
    if not (folder / results_name).is_file():
        raise InputError(f"{path} holds no {results_name}, so its {stage} is not finished; finish it with --resume")
    measured = read_json(folder / results_name).get("weights", checkpoint.weights)
    if measured != checkpoint.weights:
        raise InputError(f"{path}: model.safetensors is not the one {results_name} was written for; train it again")
    template = folder / "chat_template.jinja"
    if not template.is_file() or template.read_text(encoding="utf-8", errors="replace") != CHAT_TEMPLATE:
        raise InputError(f"{path}: chat_template.jinja is not the prompt the model was trained with; train it again")
    return checkpoint


def files_to_publish(checkpoint: "Checkpoint", folder: Path, card: str) -> dict[str, Path | bytes]:
    """What goes up, by its path in the repository. The card is made for the Hub and not written to the folder."""
    others = set(RESULTS_OF.values()) - {RESULTS_OF.get(checkpoint.lineage[-1]["stage"])}  # of an earlier stage
    present = [name for name in PUBLISHED_FILES if name not in others and (folder / name).is_file()]
    return {CARD_NAME: card.encode()} | {name: folder / name for name in present}


def size_of(content: Path | bytes) -> int:
    return len(content) if isinstance(content, bytes) else content.stat().st_size


def publish(api: HfApi, repo_id: str, files: Mapping[str, Path | bytes], private: bool, message: str) -> list[str]:
    """Make the repository hold these model files and no others, in one commit. Returns what had to go up or away."""
    with hub_errors(f"uploading to {repo_id}"):
        patiently(api.create_repo, repo_id, private=private or None, exist_ok=True)
        info = patiently(api.model_info, repo_id)
    if private and info.private is False:
        raise RunError(
            f"{repo_id} exists and is public, so nothing was uploaded; "
            "make it private in its settings on the Hub, or leave out --private"
        )
    with hub_errors(f"uploading to {repo_id}"):
        there = {entry.path: entry for entry in api.list_repo_tree(repo_id) if isinstance(entry, RepoFile)}
        changed = [name for name, content in files.items() if name not in there or not _is_same(content, there[name])]
        stale = [name for name in PUBLISHED_FILES if name in there and name not in files]

        def commit() -> None:
            added = [CommitOperationAdd(name, files[name]) for name in changed]
            removed = [CommitOperationDelete(name) for name in stale]
            api.create_commit(repo_id, [*added, *removed], commit_message=message)

        if changed or stale:
            patiently(commit)
    return changed + stale


def _is_same(content: Path | bytes, file: RepoFile) -> bool:
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


class _Bar(tqdm):
    """A bar for files that take a while, where there is a terminal to draw it on."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **{**kwargs, "delay": 3, "leave": False, "disable": None})
