"""Models to and from the Hugging Face Hub: what goes up, what comes down, and what a failure means.

The token is taken from where `huggingface_hub` takes it (HF_TOKEN, `hf auth login`) and never shown.
"""

import hashlib
import logging
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import httpx2
from huggingface_hub import CommitOperationAdd, HfApi, get_session, get_token, hf_hub_download
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils import HFValidationError, validate_repo_id
from tqdm import tqdm

from domain_tokens.errors import InputError, RunError
from domain_tokens.results import (
    GSM8K_SFT_RESULTS,
    RECORD_NAME,
    RESOLVED_CONFIG,
    TULU_RESULTS,
    UNFINISHED,
    read_json,
    write_json,
)

if TYPE_CHECKING:  # torch comes with it, and listing or fetching needs it late or never
    from domain_tokens.checkpoints import Checkpoint

CARD_NAME = "README.md"
# What a user of a model needs, and all that ever goes up or comes down: no optimizer, no logs, nothing pickled, and
# no file that happened to lie in the folder.
MODEL_FILES = (
    "config.json", "generation_config.json", "model.safetensors",
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "vocab.json", "merges.txt", "tokenizer.model", "chat_template.jinja",
    RECORD_NAME, TULU_RESULTS, GSM8K_SFT_RESULTS, RESOLVED_CONFIG,
)  # fmt: skip
# Other people's models may come in several files.
_DOWNLOADED = re.compile("|".join([
    *map(re.escape, (*MODEL_FILES, CARD_NAME, "model.safetensors.index.json")), r"model-\d+-of-\d+\.safetensors",
]))  # fmt: skip
_CHECKPOINT_FILE = re.compile(r"checkpoint-\d+/[\w.-]+")
_CHECKPOINT_NAME = re.compile(r"checkpoint-\d+")
# The results file a stage ends with; a start model has none.
_RESULTS_OF = {"sft_tulu": TULU_RESULTS, "sft_gsm8k": GSM8K_SFT_RESULTS}

LOG_IN = "log in with `uv run hf auth login` or set HF_TOKEN"
_WAITS = (1, 5)  # seconds before the second and third try
_SILENCE_LIMIT = 60  # seconds without a byte before a connection counts as lost; the client would wait for ever


class Remote(NamedTuple):
    """A repository at one commit, and those of its files that make the model."""

    repo_id: str
    commit: str
    files: list[RepoFile]

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files)


def prepare_client(say: Callable[[str], None]) -> None:
    """Before the first use of the Hub: a limit to its client's patience, and `say` hears of every retry."""
    token = get_token()
    if token is not None and not re.fullmatch(r"[!-~]+", token):  # it would be quoted in an error about the header
        raise RunError(f"the saved token or HF_TOKEN holds characters that no token has; {LOG_IN}")
    get_session().timeout = httpx2.Timeout(_SILENCE_LIMIT)
    logger = logging.getLogger("huggingface_hub")
    logger.handlers = [_Notes(say)]
    logger.propagate = False


def open_hub(say: Callable[[str], None]) -> HfApi:
    prepare_client(say)
    return HfApi()


def require_token() -> None:
    if get_token() is None:
        raise RunError(f"uploading needs a Hugging Face token, and there is none; {LOG_IN}")


def check_repo_id(repo_id: str) -> None:
    """InputError for what the Hub would not take as a repository's full name."""
    expected = "expected OWNER/NAME of letters, digits, -, _ and ."
    try:
        validate_repo_id(repo_id)
    except HFValidationError:
        raise InputError(f"repository {repo_id!r} is no valid name; {expected}") from None
    if "/" not in repo_id:
        raise InputError(f"repository {repo_id!r} has no owner; {expected}")


@contextmanager
def hub_errors(doing: str) -> Iterator[None]:
    """Turn whatever the Hub's clients raise into one RunError that names what was being done and the remedy."""
    try:
        yield
    except (httpx2.HTTPError, OSError, RuntimeError, ValueError) as error:
        raise RunError(f"{doing}: {_explained(error)}") from error


def look_up(api: HfApi, repo_id: str, revision: str | None = None, include_checkpoints: bool = False) -> Remote | None:
    """The repository's model files at a revision (default: the newest), or None where there is no such repository."""
    with hub_errors(f"looking up {repo_id}"):
        try:
            info = _patiently(api.model_info, repo_id, revision=revision)
        except RepositoryNotFoundError:
            return None
        entries = api.list_repo_tree(repo_id, recursive=True, revision=info.sha)
        wanted = [entry for entry in entries if isinstance(entry, RepoFile) and (
            _DOWNLOADED.fullmatch(entry.path) or (include_checkpoints and _CHECKPOINT_FILE.fullmatch(entry.path))
        )]  # fmt: skip
    return Remote(repo_id, info.sha, sorted(wanted, key=lambda file: file.size))


def is_here(folder: Path) -> bool:
    """Does the folder hold a model? Downloads and training runs put it there whole."""
    return (folder / "config.json").is_file() and any(folder.glob("*.safetensors"))


def fetch(remote: Remote, folder: Path, condition: str) -> None:
    """Download a model, check it, and only then give the folder its name.

    Files land in `.{name}.downloading` beside it. What is complete there is kept when a download is interrupted, and
    the next one goes on. A folder of that name gives way to the new one at the very end.
    """
    from domain_tokens.checkpoints import open_checkpoint

    repo_id = remote.repo_id
    if "config.json" not in {file.path for file in remote.files}:
        raise RunError(f"{repo_id} holds no model (config.json and model.safetensors)")
    arriving = folder.with_name(f".{folder.name}.downloading")
    arriving.mkdir(parents=True, exist_ok=True)
    with hub_errors(f"fetching {repo_id}"):
        for file in remote.files:
            target = {"revision": remote.commit, "local_dir": arriving, "tqdm_class": _Bar}
            _patiently(hf_hub_download, repo_id, file.path, **target)
    if damaged := [file.path for file in remote.files if not _is_same(arriving / file.path, file)]:
        for path in damaged:
            (arriving / path).unlink()
        raise RunError(f"{repo_id}: {damaged[0]} came damaged (its checksum is wrong); give the same command again")
    shutil.rmtree(arriving / ".cache")
    _remove_strangers(arriving, remote)
    try:
        open_checkpoint(str(arriving), _recorded_condition(arriving, condition, remote))
    except InputError as error:
        shutil.rmtree(arriving)
        raise RunError(str(error).replace(str(arriving), repo_id)) from error
    replaced = folder.with_name(f".{folder.name}.replaced")
    if folder.exists():
        folder.rename(replaced)
    arriving.rename(folder)
    if replaced.exists():
        shutil.rmtree(replaced)


def _recorded_condition(folder: Path, condition: str, remote: Remote) -> str:
    """A start model of other makers does not say its condition; the registry knows, and where it came from."""
    if not (folder / RECORD_NAME).exists():
        lineage = [{"stage": "start", "source": remote.repo_id, "revision": remote.commit}]
        write_json(folder / RECORD_NAME, {"condition": condition, "lineage": lineage})
    return condition


def _remove_strangers(folder: Path, remote: Remote) -> None:
    """Files of an earlier download that was interrupted, from a revision that had others."""
    expected = {folder / file.path for file in remote.files}
    for path in folder.rglob("*"):
        if path.is_file() and path not in expected:
            path.unlink()


def check_publishable(path: str) -> "Checkpoint":
    """Open a folder that is to go up. InputError for anything but a finished model with its record and results."""
    from domain_tokens.checkpoints import open_checkpoint

    folder = Path(path)
    if _CHECKPOINT_NAME.fullmatch(folder.resolve().name) or (folder / "trainer_state.json").exists():
        raise InputError(f"{path} is a checkpoint of a running training; give the folder of the finished model")
    if (folder / UNFINISHED).exists():
        raise InputError(f"{path} holds an interrupted run; finish it with --resume first")
    if folder.is_dir():
        for name in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", RECORD_NAME):
            if not (folder / name).is_file():
                remedy = "scripts/prepare_base.py makes a start model, the sft scripts a trained one"
                raise InputError(f"{path} holds no {name}, so it is no complete model; {remedy}")
    checkpoint = open_checkpoint(path, None)
    stage = checkpoint.lineage[-1].get("stage") if checkpoint.lineage else None
    if (results_name := _RESULTS_OF.get(stage)) is not None:
        if not (folder / results_name).is_file():
            raise InputError(f"{path} holds no {results_name}, so its {stage} is not finished; finish it with --resume")
        measured = read_json(folder / results_name).get("weights", checkpoint.weights)
        if measured != checkpoint.weights:
            raise InputError(f"{path}: model.safetensors is not the one {results_name} was written for; train it again")
    return checkpoint


def files_to_publish(folder: Path, card: str) -> dict[str, Path | bytes]:
    """What goes up, by its path in the repository. The card is made for the Hub and not written to the folder."""
    present = [name for name in MODEL_FILES if (folder / name).is_file()]
    return {CARD_NAME: card.encode()} | {name: folder / name for name in present}


def size_of(content: Path | bytes) -> int:
    return len(content) if isinstance(content, bytes) else content.stat().st_size


def publish(api: HfApi, repo_id: str, files: Mapping[str, Path | bytes], private: bool, message: str) -> list[str]:
    """Commit those of the files that the repository does not hold already. Returns their paths."""
    with hub_errors(f"uploading to {repo_id}"):
        _patiently(api.create_repo, repo_id, private=private or None, exist_ok=True)
        info = _patiently(api.model_info, repo_id)
    if private and info.private is False:
        raise RunError(
            f"{repo_id} exists and is public, so nothing was uploaded; "
            "make it private in its settings on the Hub, or leave out --private"
        )
    with hub_errors(f"uploading to {repo_id}"):
        there = {entry.path: entry for entry in api.list_repo_tree(repo_id) if isinstance(entry, RepoFile)}
        changed = [name for name, content in files.items() if name not in there or not _is_same(content, there[name])]
        if changed:
            _patiently(_commit, api, repo_id, {name: files[name] for name in changed}, message)
    return changed


def _commit(api: HfApi, repo_id: str, files: Mapping[str, Path | bytes], message: str) -> None:
    api.create_commit(repo_id, [CommitOperationAdd(*file) for file in files.items()], commit_message=message)


def _patiently(call: Callable, *args, **kwargs):
    """Call again where the Hub was only busy or the line bad. Its client does so for most requests, not for these."""
    for wait in _WAITS:
        try:
            return call(*args, **kwargs)
        except httpx2.HTTPError as error:
            status = error.response.status_code if isinstance(error, HfHubHTTPError) else None
            if status is not None and status != 429 and status < 500:
                raise
            asked = error.response.headers.get("Retry-After", "") if status is not None else ""
            wait = min(int(asked), _SILENCE_LIMIT) if asked.isdigit() else wait
            problem = f"HTTP error {status}" if status is not None else type(error).__name__
            logging.getLogger("huggingface_hub").warning("%s. Retrying in %ss.", problem, wait)
            time.sleep(wait)
    return call(*args, **kwargs)


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


class _Notes(logging.Handler):
    """The client's log lines, for people: without addresses, one line each."""

    def __init__(self, say: Callable[[str], None]):
        super().__init__(logging.WARNING)
        self.say = say

    def emit(self, record: logging.LogRecord) -> None:
        text = " ".join(re.sub(r"https?://\S+", "the Hub", record.getMessage()).split())
        self.say(f"  {_without_token(text)}")


class _Bar(tqdm):
    """A bar for files that take a while, by the file's name alone."""

    def __init__(self, *args, **kwargs):
        name = kwargs.get("desc", "").rpartition("/")[2]
        super().__init__(*args, **{**kwargs, "desc": name, "delay": 3, "leave": False})


def _explained(error: BaseException) -> str:
    """One sentence: what happened, and what mends it."""
    chain = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None and cause not in chain:
        chain.append(cause)
    for link in chain:
        if isinstance(link, HfHubHTTPError):
            return _without_token(_answer(link))
    for link in chain:
        if isinstance(link, httpx2.HTTPError):
            return f"the connection to the Hub failed ({type(link).__name__}); give the same command again"
    return _without_token(str(error)) or type(error).__name__


def _answer(error: HfHubHTTPError) -> str:
    status = error.response.status_code
    said = " ".join((error.server_message or "").split())
    said = f" ({said})" if said else ""
    again = "give the same command again"
    if isinstance(error, RevisionNotFoundError):
        return "there is no such revision; check --revision"
    if isinstance(error, RepositoryNotFoundError):
        return f"it is not on the Hub, or private: check the name, or {LOG_IN} and {again}"
    if status == 401:
        refused = "the Hub refuses the token" if get_token() else "the Hub asks for a token"
        return f"{refused}; {LOG_IN}, then {again}"
    if status == 403:
        return f"the token does not allow that{said}; {LOG_IN} with one that may write there, then {again}"
    if status == 404:
        return f"there is no such thing on the Hub{said}; check the name"
    if status == 429:
        return f"too many requests; wait a little, then {again}"
    if status >= 500:
        return f"the Hub has a problem ({status} {error.response.reason_phrase}); {again} later"
    return f"the Hub answered {status} {error.response.reason_phrase}{said}"


def _without_token(text: str) -> str:
    token = get_token()
    return text.replace(token, "<token>") if token else text
