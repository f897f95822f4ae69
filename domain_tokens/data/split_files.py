"""Which files of a folder hold a split: refused where that is not clear, so that no test question is trained on."""

import os
import re
from itertools import takewhile
from pathlib import Path

from domain_tokens.runs.errors import InputError

SUBSETS = {"openai/gsm8k": "main"}  # of the datasets that have several, the one that is meant
KINDS = {".jsonl": "json", ".json": "json", ".ndjson": "json", ".parquet": "parquet", ".arrow": "arrow", ".csv": "csv"}
_COMPRESSED = (".gz", ".bz2", ".xz", ".zst")
EXPECTED = "JSON lines, a JSON array, Parquet, Arrow or CSV"
# How names say that rows are not for this split. Validation rows may be tested on, but not trained on.
OTHER_SPLITS = {
    "train": re.compile("te?st|eval|val(id|set|data|[^a-z])|dev|h[eo]ld.?out", re.IGNORECASE),
    "test": re.compile("trn|train", re.IGNORECASE),
}


def file_kind(path: Path) -> str | None:
    """Return the name of the library's reader for a file; None for files that are not read."""
    return KINDS.get(_unpacked(path).suffix)


def _unpacked(path: Path) -> Path:
    return path.with_suffix("") if path.suffix in _COMPRESSED else path


def split_files(folder: Path, subset: str | None, split: str) -> list[Path]:
    """Return the file `{split}.jsonl` (or .parquet, …) of a folder, or else those whose names say the split.

    Where no name says any split, the one file or the one set of numbered files is the training split.
    """
    files = [
        path for path in folder.glob(f"{split}.*")
        if file_kind(path) and _unpacked(path).stem == split and path.is_file()
    ]  # fmt: skip
    if len(files) > 1:
        raise InputError(
            f"dataset folder {folder} holds {_shown(files, folder)}, expected one {split} file; name one of them"
        )
    if files:
        return files
    if subset is None:
        folder = next((folder / name for name in SUBSETS.values() if (folder / name).is_dir()), folder)
    files, any_name = _known_files(folder, split)
    if not files:
        raise InputError(
            f"dataset folder {folder} has no {split} file; expected {split}.jsonl or {split}.parquet in it, or another "
            f"name that the datasets library knows, with {EXPECTED}"
        )
    if subset is not None and (others := _subsets(files, folder, split)):
        raise InputError(
            f"dataset folder {folder} has no subset {subset}, only {', '.join(others)}; name the folder of one, or "
            "give subset=null"
        )
    _check_set(files, folder, split, any_name)
    return files


def _known_files(folder: Path, split: str) -> tuple[list[Path], bool]:
    """Return the files that the datasets library takes for the split, and whether it would take any name."""
    from datasets.data_files import DEFAULT_PATTERNS_ALL, DataFilesList, get_data_patterns

    try:
        patterns = get_data_patterns(str(folder))
        found = DataFilesList.from_patterns(patterns.get(split, []), str(folder))
    except (FileNotFoundError, ValueError):  # no name that the library knows; data/…-of-… with a name it refuses
        return [], False
    files = (folder / os.path.relpath(path, folder) for path in found)  # the library's are absolute
    return sorted(path for path in files if file_kind(path)), patterns == DEFAULT_PATTERNS_ALL


def _subsets(files: list[Path], folder: Path, split: str) -> list[str]:
    """Return the folders, above any of the split, that files lie in, but for those that every dataset may have."""
    parts = [takewhile(lambda part: split not in part.lower(), file.relative_to(folder).parts[:-1]) for file in files]
    return sorted(set().union(*parts) - {"data", "default"})


def _check_set(files: list[Path], folder: Path, split: str, any_name: bool) -> None:
    """Raise InputError unless files are one whole set of one split and kind. any_name: no name says a split."""
    holds = f"dataset folder {folder} holds {_shown(files, folder)}, expected"
    names = [str(file.relative_to(folder)) for file in files]
    if any_name and (
        len({re.sub(r"\d+", "", name) for name in names}) > 1 or any(map(OTHER_SPLITS[split].search, names))
    ):
        raise InputError(
            f"{holds} names that say {split}; name one file, or move the {split} files to a folder {split}"
        )
    if any(OTHER_SPLITS[split].match(file.name) for file in files):
        raise InputError(f"{holds} no names that say another split; name one file, or move those elsewhere")
    if len({file_kind(file) for file in files}) > 1:
        raise InputError(f"{holds} {split} files of one kind; name one of them")
    shards = sorted(match.groups() for file in files if (match := re.search(r"(\d{5})-of-(\d{5})\b", file.name)))
    if shards and shards != [(f"{i:05}", f"{len(files):05}") for i in range(len(files))]:
        raise InputError(f"{holds} all of one set of {split} shards and no others; fetch the dataset again")


def _shown(files: list[Path], folder: Path) -> str:
    return ", ".join(sorted(str(file.relative_to(folder)) for file in files)[:3]) + (" …" if len(files) > 3 else "")
