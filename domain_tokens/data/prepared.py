"""Conversations in, labelled tokens out, kept on disk so that the same data is prepared once.

What is kept is found again by a fingerprint of everything that shapes it: the rows, the tokenizer, the settings and
the code of the rules. A changed one makes another fingerprint, so nothing stale is ever read.
"""

import hashlib
import json
import os
import shutil
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from tqdm import tqdm

from domain_tokens.data.contamination import Questions
from domain_tokens.data.conversations import Converter
from domain_tokens.data.parallel import map_in_order
from domain_tokens.data.readers import Rows, open_rows
from domain_tokens.data.splits import BAR_DELAY, Split, evaluation_questions, split_training_rows
from domain_tokens.inject import inject_counted
from domain_tokens.prompt import Message, encode_conversations, labels
from domain_tokens.runs.errors import InputError, RunError
from domain_tokens.runs.files import read_json, user_path, write_json
from domain_tokens.runs.folders import wait_for_lock
from domain_tokens.runs.recipes import DataConfig

_ABOUT = "about.json"  # written last: a folder with it is whole

# The code that decides what comes out.
_PACKAGE = Path(__file__).parents[1]
_RULES = (
    "facts.py", "inject.py", "prompt.py", "data/contamination.py", "data/conversations.py", "data/readers.py",
    "data/splits.py", "data/prepared.py",
)  # fmt: skip
_UNUSED_DAYS = 30  # then a prepared dataset is removed
_CHUNK = 200  # rows that one process prepares at a time


@dataclass
class Prepared:
    """Labelled token rows, one behind the other, and how they came about.

    ids: int32, trained: bool, where there is loss; all rows joined, row i is [offsets[i] : offsets[i + 1]]. As a
    dataset for the Trainer, item i is {"input_ids": …, "labels": …}, int32, unpadded.
    """

    ids: np.ndarray
    trained: np.ndarray
    offsets: np.ndarray
    cut: int
    dropped: int
    injected: Counter[str]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, i: int) -> dict[str, np.ndarray]:
        row = slice(self.offsets[i], self.offsets[i + 1])
        ids = np.array(self.ids[row])
        return {"input_ids": ids, "labels": labels(ids, self.trained[row])}

    @property
    def trained_tokens(self) -> int:
        """Labels that carry loss: a causal LM predicts token t from those before it, so never a row's first."""
        return int(np.count_nonzero(self.trained) - np.count_nonzero(self.trained[self.offsets[:-1]]))

    def digest(self) -> str:
        """sha256, in hexadecimal, over all rows: tokens, and where there is loss."""
        digest = hashlib.sha256()
        for values in (self.ids, self.trained, self.offsets):
            digest.update(np.ascontiguousarray(values).data)
        return digest.hexdigest()

    def counts(self) -> dict[str, int]:
        return {
            "kept": len(self),
            "cut": self.cut,
            "dropped": self.dropped,
            "injected_mul_tokens": self.injected.total(),
            "tokens": len(self.ids),
            "trained_tokens": self.trained_tokens,
        }


def prepare_training_data(
    config: DataConfig, seed: int, convert: Converter, tokenizer, inject_facts: bool
) -> tuple[Prepared, Prepared, dict[str, Any]]:
    """Training and validation rows, both treated alike, and what was left out and why.

    left out: {"unusable": by reason, "contaminated": for sharing words with test questions, None where not asked for}.

    Prepared by one process while others wait, and read from disk by all: memory-mapped, so that the number of rows
    does not matter.
    """
    rows = open_rows(config.dataset, config.subset, "train")
    questions = _questions(config.decontaminate_against)
    folder = cache_folder() / fingerprint(rows, config, seed, convert, tokenizer, inject_facts, questions)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with wait_for_lock(f"{folder}.lock", "prepares the same rows"):
            if not _is_whole(folder):
                _remove_unused(folder.parent)
                against = None if questions is None else Questions(questions)
                split = split_training_rows(rows, config, seed, convert, against)
                _prepare_into(folder, split, tokenizer, config, inject_facts)
            (folder / _ABOUT).touch()
            about = read_json(folder / _ABOUT)
            return _read(folder, "train", about), _read(folder, "val", about), about["left_out"]
    except OSError as error:
        raise RunError(
            f"prepared rows cannot be kept in {folder.parent} ({error.strerror}); set HF_HOME to a folder that can be "
            "written and has room"
        ) from error


def cache_folder() -> Path:
    """Beside the libraries' own caches, which people with little room at home have moved with HF_HOME."""
    return Path(user_path(os.environ.get("HF_HOME") or "~/.cache/huggingface")) / "domain_tokens"


def _questions(dataset: str | None) -> list[str] | None:
    """The test questions that training rows must not share words with; None where no dataset is named."""
    if dataset is None:
        return None
    try:
        return list(evaluation_questions(dataset)[0].values())
    except InputError as error:
        raise InputError(f"data.decontaminate_against: {error}") from None


def fingerprint(
    rows: Rows,
    config: DataConfig,
    seed: int,
    convert: Converter,
    tokenizer,
    inject_facts: bool,
    questions: list[str] | None,
) -> str:
    """sha256, in hexadecimal, over all that decides which tokens and labels come out. The rows' place does not."""
    parts = [
        *((_PACKAGE / name).read_bytes() for name in _RULES),
        version("tokenizers").encode(),
        tokenizer.backend_tokenizer.to_str().encode(),
        str(tokenizer.eos_token).encode(),
        rows.digest().encode(),
        json.dumps(
            [
                convert.__name__, seed, inject_facts,
                config.max_length, config.train_samples, config.val_samples, config.loss_on, questions,
            ]
        ).encode(),
    ]  # fmt: skip
    return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()


def _is_whole(folder: Path) -> bool:
    """Files may have been deleted, or lost their content in a power cut."""
    if not (folder / _ABOUT).is_file():
        return False
    try:
        sizes = read_json(folder / _ABOUT)["bytes"]
    except (InputError, KeyError):
        return False
    return all((folder / name).is_file() and (folder / name).stat().st_size == size for name, size in sizes.items())


def _remove_unused(cache: Path) -> None:
    for folder in [path for path in cache.iterdir() if path.is_dir()]:
        try:
            with FileLock(f"{folder}.lock", timeout=0):
                used = folder / _ABOUT if (folder / _ABOUT).is_file() else folder
                if time.time() - used.stat().st_mtime > _UNUSED_DAYS * 24 * 3600:
                    shutil.rmtree(folder)
        except (Timeout, FileNotFoundError):  # another process uses or removes it
            continue


def _prepare_into(folder: Path, split: Split, tokenizer, config: DataConfig, inject_facts: bool) -> None:
    shutil.rmtree(folder, ignore_errors=True)  # what an interrupted run left
    folder.mkdir()
    about: dict[str, Any] = {"left_out": {"unusable": split.unusable, "contaminated": split.contaminated}}
    for name, indices in (("train", split.train), ("val", split.val)):
        bar = tqdm(total=len(indices), desc=f"tokenising {name} rows", unit="row", delay=BAR_DELAY)
        counts = {"cut": 0, "dropped": 0, "injected": Counter()}
        offsets, tokens = [np.zeros(1, np.int64)], 0

        def prepared(first: int, indices: Sequence[int] = indices) -> Prepared:
            conversations = split.conversations(indices[first : first + _CHUNK])
            return prepare(conversations, tokenizer, config.max_length, config.loss_on, inject_facts)

        with bar, (folder / f"{name}.ids").open("wb") as ids, (folder / f"{name}.trained").open("wb") as trained:
            for part in map_in_order(prepared, range(0, len(indices), _CHUNK)):
                ids.write(part.ids.tobytes())
                trained.write(part.trained.tobytes())
                offsets.append(tokens + part.offsets[1:])
                tokens += len(part.ids)
                for key, count in counts.items():
                    counts[key] = count + getattr(part, key)
                bar.update(len(part) + part.dropped)
            for file in (ids, trained):
                file.flush()
                os.fsync(file.fileno())
        np.concatenate(offsets).tofile(folder / f"{name}.offsets")
        about[name] = counts
        if name == "train" and not tokens:
            raise InputError(
                f"{split.rows.origin}: within data.max_length {config.max_length} no row has a token to train on; "
                "raise it"
            )
    about["bytes"] = {path.name: path.stat().st_size for path in folder.iterdir()}
    write_json(folder / _ABOUT, about)


def _read(folder: Path, name: str, about: dict[str, Any]) -> Prepared:
    def array(kind: str, dtype: type) -> np.ndarray:
        path = folder / f"{name}.{kind}"
        return np.memmap(path, dtype, mode="r") if path.stat().st_size else np.empty(0, dtype)

    counts = about[name]
    return Prepared(
        array("ids", np.int32), array("trained", np.bool_), np.fromfile(folder / f"{name}.offsets", np.int64),
        counts["cut"], counts["dropped"], Counter(counts["injected"]),
    )  # fmt: skip


def prepare(
    conversations: Iterable[list[Message]], tokenizer, max_length: int, loss_on: str, inject_facts: bool
) -> Prepared:
    """Inject (assistant turns only), render, tokenise and label. Rows left without a trained token are dropped."""
    injected: Counter[str] = Counter()
    conversations = [
        [_injected(message, injected) for message in messages] if inject_facts else messages
        for messages in conversations
    ]
    encoded = encode_conversations(tokenizer, conversations, max_length, loss_on)
    kept = [row for row in encoded if any(row.trained[1:])]
    lengths = [len(row.ids) for row in kept]
    return Prepared(
        np.concatenate([np.empty(0, np.int32), *(np.array(row.ids, np.int32) for row in kept)]),
        np.concatenate([np.empty(0, np.bool_), *(np.array(row.trained) for row in kept)]),
        np.cumsum([0, *lengths], dtype=np.int64),
        sum(row.cut for row in kept),
        len(encoded) - len(kept),
        injected,
    )


def _injected(message: Message, counts: Counter[str]) -> Message:
    if message["role"] != "assistant":
        return message
    text, found = inject_counted(message["content"])
    counts.update(found)
    return message | {"content": text}
