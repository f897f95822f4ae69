"""Models from the Hub: found, fetched file by file, checked, and only then given their folder's name.

Our own, and not the library's hf_hub_download: an interrupted file is continued here, while the library throws its
partial files away.
"""

import re
import shutil
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock, Timeout
from huggingface_hub import HfApi, hf_hub_url
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError
from huggingface_hub.file_download import http_get
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils import build_hf_headers
from tqdm import tqdm

from domain_tokens.hub.client import BeyondLimit, hub_errors, promised, with_retries
from domain_tokens.hub.files import CARD_NAME, CHECKPOINT_FILE, PUBLISHED_FILES, SHARD, is_same, list_files
from domain_tokens.runs.errors import InputError, RunError
from domain_tokens.runs.files import write_json
from domain_tokens.runs.names import RECORD_NAME

_LOCK, _LOCK_WAIT = ".lock", 1  # seconds


class Remote(NamedTuple):
    """A repository at one commit, and those of its files that make the model."""

    repo_id: str
    commit: str
    files: list[RepoFile]

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files)


def find_remote_model(
    api: HfApi, repo_id: str, revision: str | None = None, include_checkpoints: bool = False
) -> Remote | None:
    """Return a repository's model files at a revision (default: the newest), or None if there is no such thing."""
    with hub_errors(f"looking up {repo_id}"):
        try:
            info = with_retries(api.model_info, repo_id, revision=revision)
        except (RepositoryNotFoundError, RevisionNotFoundError) as error:
            if isinstance(error, GatedRepoError):  # it is there, and its owner can open it
                raise
            return None
        files = list_files(api, repo_id, recursive=True, revision=info.sha)
    wanted = [*PUBLISHED_FILES, CARD_NAME]
    if "model.safetensors" not in files:  # other people's models may come in several files
        wanted += [path for path in files if SHARD.fullmatch(path)]
    if include_checkpoints:
        wanted += [path for path in files if CHECKPOINT_FILE.fullmatch(path)]
    found = [files[path] for path in wanted if path in files]
    for file in found:
        checksum = file.blob_id if file.lfs is None else file.lfs.sha256
        if type(file.size) is not int or file.size < 0 or not re.fullmatch(r"[0-9a-f]{40,64}", str(checksum)):
            raise RunError(f"{repo_id}: the Hub gives no proper size and checksum of {file.path}; check HF_ENDPOINT")
    return Remote(repo_id, info.sha, sorted(found, key=lambda file: file.size))


def download_model(remote: Remote, folder: Path, condition: str) -> str:
    """Download a model, check it, and only then give the folder its name. Returns the condition in its record.

    Files arrive in `.{name}.downloading` beside it. An interrupted download leaves them there, to the block, and the
    next one continues. An existing folder is replaced at the very end. condition: for a start model of other makers,
    which has no record.
    """
    arriving = folder.with_name(f".{folder.name}.downloading")
    with hub_errors(f"fetching {remote.repo_id}"):
        arriving.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(arriving / _LOCK, timeout=_LOCK_WAIT):
                for file in remote.files:
                    _download(remote, file, arriving)
                _remove_unexpected(arriving, remote)
                if not (arriving / RECORD_NAME).exists():
                    lineage = [{"stage": "start", "source": remote.repo_id, "revision": remote.commit}]
                    write_json(arriving / RECORD_NAME, {"condition": condition, "lineage": lineage})
                recorded = _check_fetched(remote, arriving)
        except Timeout:
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
    """Fetch one file, continuing where an earlier try ended, and accept it only with the right checksum."""
    target = folder / file.path
    if target.is_file() and is_same(target, file):
        return
    part = target.with_name(f"{target.name}.{file.blob_id}.part")
    part.parent.mkdir(parents=True, exist_ok=True)
    url = hf_hub_url(remote.repo_id, file.path, revision=remote.commit)

    def go_on() -> None:
        with part.open("ab") as opened, promised(file.size):
            have = opened.tell()
            http_get(
                url, opened, resume_size=have, headers=build_hf_headers(), expected_size=file.size,
                displayed_filename=file.path, tqdm_class=_Bar,
            )  # fmt: skip

    try:
        with_retries(go_on)
    except BeyondLimit:
        if part.stat().st_size > file.size:
            part.unlink()
        raise
    if not is_same(part, file):
        part.unlink()
        raise RunError(
            f"{remote.repo_id}: {file.path} came damaged (its checksum is wrong); run the same command again"
        )
    part.replace(target)


def _check_fetched(remote: Remote, folder: Path) -> str:
    """Open the model and return the condition it has. A folder that cannot be used is removed again."""
    from domain_tokens.models.folder import open_model

    try:
        return open_model(str(folder), None).condition
    except InputError as error:
        _remove(folder)
        raise RunError(str(error).replace(str(folder), remote.repo_id)) from error


def _remove_unexpected(folder: Path, remote: Remote) -> None:
    """Remove files of an earlier, interrupted download of another revision."""
    expected = {folder / file.path for file in remote.files} | {folder / _LOCK}
    for path in folder.rglob("*"):
        if path.is_file() and path not in expected:
            path.unlink()


def _remove(path: Path) -> None:
    """Remove a folder, a file or a link, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


class _Bar(tqdm):
    """A bar for files that take a while, where there is a terminal to draw it on."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **{**kwargs, "delay": 3, "leave": False, "disable": None})
