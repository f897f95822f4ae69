"""Training and validation rows, prepared once and then read from disk.

Prepared rows are found again by a fingerprint of everything that decides them: the rows, the tokenizer, the settings
and the code of the rules. A change of any of these gives another fingerprint, so nothing stale is ever read.
"""

import hashlib
import json
import os
import shutil
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from domain_tokens.conditions import CONDITIONS, Condition
from domain_tokens.data.contamination import Questions
from domain_tokens.data.conversations import Converter, without_reserved_tokens
from domain_tokens.data.parallel import map_rows
from domain_tokens.data.prepared import ARRAYS, COUNTS, Prepared, join, prepare
from domain_tokens.data.readers import Rows, open_rows
from domain_tokens.data.splits import evaluation_questions, split_training_rows
from domain_tokens.runs.config_schema import DataConfig
from domain_tokens.runs.errors import InputError, RunError
from domain_tokens.runs.files import read_json, user_path, write_json
from domain_tokens.runs.folders import wait_for_lock

_ABOUT = "about.json"  # written last
_UNUSED_DAYS = 30  # prepared rows are removed after that
_CHUNK = 200  # rows that a process prepares at a time

# The code that decides what comes out.
_PACKAGE = Path(__file__).parents[1]
_RULES = (
    "facts.py", "conditions.py", "inject.py", "prompt.py", "data/contamination.py", "data/conversations.py",
    "data/readers.py", "data/splits.py", "data/prepared.py", "data/shared_text.py", "data/cache.py",
)  # fmt: skip


def prepare_training_data(
    config: DataConfig, seed: int, convert: Converter, tokenizer, condition: Condition
) -> tuple[Prepared, Prepared, dict[str, Any]]:
    """Return training and validation rows, both treated alike, and what `split_training_rows` left out.

    One process prepares them while others wait. Later they are memory-mapped from disk.
    """
    rows = open_rows(config.dataset, config.subset, "train")
    try:
        against = config.decontaminate_against
        questions = Questions(list(evaluation_questions(against)[0].values())) if against is not None else None
    except InputError as error:
        raise InputError(f"data.decontaminate_against: {error}") from None
    asked = questions and questions.texts
    folder = cache_folder() / _fingerprint(rows, config, seed, convert, tokenizer, condition, asked)
    with ExitStack() as held:
        with _errors_of_writing(folder.parent):
            folder.parent.mkdir(parents=True, exist_ok=True)
            held.enter_context(wait_for_lock(f"{folder}.lock", "prepares the same rows"))
            found = _read(folder)
            if found is None:
                _remove_unused(folder.parent)
        if found is None:
            convert = without_reserved_tokens(convert, tokenizer)
            found = _prepared(rows, config, seed, convert, tokenizer, condition, questions)
            with _errors_of_writing(folder.parent):
                _write(folder, *found)
        with _errors_of_writing(folder.parent):
            os.utime(folder)
        return found


def _prepared(
    rows: Rows, config: DataConfig, seed: int, convert: Converter, tokenizer, condition: Condition,
    questions: Questions | None,
) -> tuple[Prepared, Prepared, dict[str, Any]]:  # fmt: skip
    train, val, left_out = split_training_rows(rows, config, seed, convert, questions)

    def prepared(indices: Sequence[int], name: str, is_measured: bool) -> Prepared:
        def part(some: Sequence[int]) -> Prepared:
            conversations = (convert(rows.read(i)) for i in some)
            return prepare(conversations, tokenizer, config.max_length, config.loss_on, condition, is_measured)

        return join(map_rows(part, indices, _CHUNK, f"tokenising {name} rows"))

    found = prepared(train, "train", False), prepared(val, "val", True), left_out
    if not len(found[0]):
        raise InputError(
            f"{rows.origin}: within data.max_length {config.max_length} no row has a token to train on; raise it"
        )
    return found


@contextmanager
def _errors_of_writing(cache: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise RunError(
            f"prepared rows cannot be kept in {cache} ({error.strerror or error}); set HF_HOME to a folder that can be "
            "written and has room"
        ) from error


def cache_folder() -> Path:
    """Return a folder beside the libraries' own caches, which HF_HOME moves for people with little room at home."""
    return Path(user_path(os.environ.get("HF_HOME") or "~/.cache/huggingface")) / "domain_tokens"


def _fingerprint(
    rows: Rows, config: DataConfig, seed: int, convert: Converter, tokenizer, condition: Condition,
    questions: list[str] | None,
) -> str:  # fmt: skip
    """Return the sha256 of all that decides which tokens and labels come out. The place of the rows does not."""
    settings = [
        convert.__name__, seed, condition.fact, config.max_length, config.train_samples, config.val_samples,
        config.loss_on, questions, [each.fact for each in CONDITIONS.values()],
    ]  # fmt: skip
    parts = [
        *((_PACKAGE / name).read_bytes() for name in _RULES),
        version("tokenizers").encode(),
        tokenizer.backend_tokenizer.to_str().encode(),
        str(tokenizer.eos_token).encode(),
        rows.digest().encode(),
        json.dumps(settings).encode(),
    ]
    return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()


def _write(folder: Path, train: Prepared, val: Prepared, left_out: dict[str, Any]) -> None:
    shutil.rmtree(folder, ignore_errors=True)  # an incomplete or damaged one
    folder.mkdir()
    about: dict[str, Any] = {"left_out": left_out}
    for name, prepared in (("train", train), ("val", val)):
        for kind in ARRAYS:
            np.save(folder / f"{name}.{kind}.npy", getattr(prepared, kind))
        about[name] = {count: getattr(prepared, count) for count in COUNTS} | {"digest": prepared.digest(ARRAYS)}
    write_json(folder / _ABOUT, about)


def _read(folder: Path) -> tuple[Prepared, Prepared, dict[str, Any]] | None:
    """Return what was written to a folder; None if there is nothing, or not exactly that, as after a power cut."""
    splits = []
    try:
        about = read_json(folder / _ABOUT)
        for name in ("train", "val"):
            arrays = {kind: np.load(folder / f"{name}.{kind}.npy", mmap_mode="r") for kind in ARRAYS}
            counts = {count: about[name][count] for count in COUNTS}
            counts |= {count: Counter(counts[count]) for count in ("injected", "shared_bytes")}
            splits.append(Prepared(**arrays, **counts))
            if splits[-1].digest(ARRAYS) != about[name]["digest"]:
                return None
        return *splits, about["left_out"]
    except (FileNotFoundError, EOFError, ValueError, KeyError, TypeError, InputError):
        return None


def _remove_unused(cache: Path) -> None:
    for folder in [path for path in cache.iterdir() if path.is_dir()]:
        try:
            with FileLock(f"{folder}.lock", timeout=0):
                if time.time() - folder.stat().st_mtime > _UNUSED_DAYS * 24 * 3600:
                    shutil.rmtree(folder)
        except (Timeout, FileNotFoundError):  # another process uses or removes it
            continue
