"""Labelled tokens of training and validation rows, prepared once and then read from disk.

Prepared rows are found again by a fingerprint of everything that decides them: the rows, the tokenizer, the settings
and the code of the rules. A change of any of these gives another fingerprint, so nothing stale is ever read.
"""

import hashlib
import json
import os
import shutil
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from domain_tokens.data.contamination import Questions
from domain_tokens.data.conversations import Converter, without_reserved_tokens
from domain_tokens.data.parallel import map_rows
from domain_tokens.data.readers import Rows, open_rows
from domain_tokens.data.splits import evaluation_questions, split_training_rows
from domain_tokens.inject import inject_counted
from domain_tokens.prompt import Message, encode_conversations, labels
from domain_tokens.runs.errors import InputError, RunError
from domain_tokens.runs.files import read_json, user_path, write_json
from domain_tokens.runs.folders import wait_for_lock
from domain_tokens.runs.recipes import DataConfig

_ABOUT = "about.json"  # written last
_ARRAYS, _COUNTS = ("ids", "trained", "offsets"), ("cut", "dropped", "injected", "too_long")
CUT_LIMIT = 0.01  # share of rows that are cut; more deserve a warning
_UNUSED_DAYS = 30  # prepared rows are removed after that
_CHUNK = 200  # rows that a process prepares at a time

# The code that decides what comes out.
_PACKAGE = Path(__file__).parents[1]
_RULES = (
    "facts.py", "inject.py", "prompt.py", "data/contamination.py", "data/conversations.py", "data/readers.py",
    "data/splits.py", "data/prepared.py",
)  # fmt: skip


@dataclass
class Prepared:
    """Labelled token rows, one after the other, and counts of how they came about.

    ids: int32; trained: bool, True where loss applies; offsets: int64, row i is [offsets[i] : offsets[i + 1]]. As a
    dataset for Trainer, item i is {"input_ids": …, "labels": …}, int32, unpadded. too_long: the lengths, in tokens, of
    rows that had to be cut, whether they were kept or dropped.
    """

    ids: np.ndarray
    trained: np.ndarray
    offsets: np.ndarray
    cut: int
    dropped: int
    injected: Counter[str]
    too_long: Counter[int] = field(default_factory=Counter)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, i: int) -> dict[str, np.ndarray]:
        row = slice(self.offsets[i], self.offsets[i + 1])
        ids = np.array(self.ids[row])
        return {"input_ids": ids, "labels": labels(ids, self.trained[row])}

    @property
    def trained_tokens(self) -> int:
        """Number of labels that carry loss: a causal LM predicts each token from those before it, never the first."""
        return int(np.count_nonzero(self.trained) - np.count_nonzero(self.trained[self.offsets[:-1]]))

    def digest(self) -> str:
        """Return the sha256, in hexadecimal, of all rows: tokens, and where loss applies."""
        digest = hashlib.sha256()
        for name in _ARRAYS:
            digest.update(np.ascontiguousarray(getattr(self, name)).data)
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
    folder = cache_folder() / _fingerprint(rows, config, seed, convert, tokenizer, inject_facts, asked)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with wait_for_lock(f"{folder}.lock", "prepares the same rows"):
            found = _read(folder)
            if found is None:
                _remove_unused(folder.parent)
                convert = without_reserved_tokens(convert, tokenizer)
                train, val, left_out = split_training_rows(rows, config, seed, convert, questions)

                def prepared(indices: Sequence[int], name: str) -> Prepared:
                    def part(some: Sequence[int]) -> Prepared:
                        conversations = (convert(rows.read(i)) for i in some)
                        return prepare(conversations, tokenizer, config.max_length, config.loss_on, inject_facts)

                    return _join(map_rows(part, indices, _CHUNK, f"tokenising {name} rows"))

                found = prepared(train, "train"), prepared(val, "val"), left_out
                if not len(found[0]):
                    raise InputError(
                        f"{rows.origin}: within data.max_length {config.max_length} no row has a token to train on; "
                        "raise it"
                    )
                _write(folder, *found)
            os.utime(folder)
            return found
    except OSError as error:
        raise RunError(
            f"prepared rows cannot be kept in {folder.parent} ({error.strerror}); set HF_HOME to a folder that can be "
            "written and has room"
        ) from error


def cut_warning(prepared: Prepared, max_length: int, context: int) -> str | None:
    """Return a warning if too many training rows had to be cut, with a length that would do; None otherwise."""
    rows, lengths = len(prepared) + prepared.dropped, sorted(prepared.too_long.elements())
    may_be_cut = int(CUT_LIMIT * rows)
    if len(lengths) <= may_be_cut:
        return None
    enough = lengths[-1 - may_be_cut]
    advice = f"max_length={enough} would cut at most {CUT_LIMIT:.0%}"
    if enough > context:
        advice += f", but the model has only {context} positions"
    return (
        f"warning: {len(lengths):,} of {rows:,} training rows ({len(lengths) / rows:.1%}) are longer than "
        f"data.max_length {max_length} and lose their end; {advice}\n"
    )


def cache_folder() -> Path:
    """Return a folder beside the libraries' own caches, which HF_HOME moves for people with little room at home."""
    return Path(user_path(os.environ.get("HF_HOME") or "~/.cache/huggingface")) / "domain_tokens"


def _fingerprint(
    rows: Rows, config: DataConfig, seed: int, convert: Converter, tokenizer, inject_facts: bool,
    questions: list[str] | None,
) -> str:  # fmt: skip
    """Return the sha256 of all that decides which tokens and labels come out. The place of the rows does not."""
    settings = [
        convert.__name__, seed, inject_facts, config.max_length, config.train_samples, config.val_samples,
        config.loss_on, questions,
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
        for kind in _ARRAYS:
            np.save(folder / f"{name}.{kind}.npy", getattr(prepared, kind))
        counts = {name: getattr(prepared, name) for name in _COUNTS}
        about[name] = {"counts": counts, "digest": prepared.digest()}
    write_json(folder / _ABOUT, about)


def _read(folder: Path) -> tuple[Prepared, Prepared, dict[str, Any]] | None:
    """Return what was written to a folder; None if there is nothing, or not exactly that, as after a power cut."""
    splits = []
    try:
        about = read_json(folder / _ABOUT)
        for name in ("train", "val"):
            arrays = [np.load(folder / f"{name}.{kind}.npy", mmap_mode="r") for kind in _ARRAYS]
            cut, dropped, injected, too_long = (about[name]["counts"][count] for count in _COUNTS)
            too_long = Counter({int(length): rows for length, rows in too_long.items()})
            splits.append(Prepared(*arrays, cut, dropped, Counter(injected), too_long))
            if splits[-1].digest() != about[name]["digest"]:
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


def prepare(
    conversations: Iterable[list[Message]], tokenizer, max_length: int, loss_on: str, inject_facts: bool
) -> Prepared:
    """Inject (assistant turns only), render, tokenise and label. Rows left without a trained token are dropped."""
    injected: Counter[str] = Counter()
    if inject_facts:
        conversations = ([_injected(message, injected) for message in messages] for messages in conversations)
    encoded = encode_conversations(tokenizer, list(conversations), max_length, loss_on)
    kept = [row for row in encoded if any(row.trained[1:])]
    return Prepared(
        np.array([i for row in kept for i in row.ids], np.int32),
        np.array([is_trained for row in kept for is_trained in row.trained], np.bool_),
        np.cumsum([0, *(len(row.ids) for row in kept)], dtype=np.int64),
        sum(len(row.ids) < row.length for row in kept),
        len(encoded) - len(kept),
        injected,
        Counter(row.length for row in encoded if len(row.ids) < row.length),
    )


def _injected(message: Message, counts: Counter[str]) -> Message:
    if message["role"] != "assistant":
        return message
    text, found = inject_counted(message["content"])
    counts.update(found)
    return message | {"content": text}


def _join(parts: Iterable[Prepared]) -> Prepared:
    nothing = Prepared(np.empty(0, np.int32), np.empty(0, np.bool_), np.zeros(1, np.int64), 0, 0, Counter())
    parts = [nothing, *parts]
    return Prepared(
        np.concatenate([part.ids for part in parts]),
        np.concatenate([part.trained for part in parts]),
        np.cumsum([0, *np.concatenate([np.diff(part.offsets) for part in parts])], dtype=np.int64),
        sum(part.cut for part in parts),
        sum(part.dropped for part in parts),
        sum((part.injected for part in parts), Counter()),
        sum((part.too_long for part in parts), Counter()),
    )
