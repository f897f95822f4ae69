"""Answers saved as they come, so that an interrupted evaluation asks only what is missing.

While an evaluation runs, its folder holds `{name}_unfinished.json` with its settings and, from each process,
`{name}_unfinished-{rank}.jsonl` with one prediction a line.
"""

import json
from pathlib import Path
from typing import Any

from domain_tokens.runs import processes
from domain_tokens.runs.folders import begin_run
from domain_tokens.runs.names import unfinished_answers, unfinished_evaluation


class UnfinishedAnswers:
    """The predictions made so far, and the file to which this process adds its own (while entered)."""

    def __init__(self, folder: Path, name: str):
        self.folder, self.name = folder, name
        self.own = folder / unfinished_answers(name, processes.rank())

    def begin(self, settings: dict[str, Any], resume: bool) -> None:
        """Mark the evaluation as begun, in the main process. Remove what an earlier one left, unless it is resumed."""
        begin_run(self.folder / unfinished_evaluation(self.name), settings, resume, self.remove)

    def rows(self) -> list[dict[str, Any]]:
        """Return the predictions that all processes saved. Damaged and half-written lines are skipped."""
        rows = []
        for path in self._files():
            *lines, _unfinished = path.read_bytes().split(b"\n")
            for line in lines:
                try:
                    rows.append(json.loads(line))
                except (ValueError, RecursionError):
                    continue
        return rows

    def __enter__(self) -> "UnfinishedAnswers":
        self.file = self.own.open("ab")
        self.file.truncate(len(b"".join(self.own.read_bytes().rpartition(b"\n")[:2])))
        return self

    def __exit__(self, *exception: object) -> None:
        self.file.close()

    def add(self, row: dict[str, Any]) -> None:
        try:
            self.file.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")
            self.file.flush()
        except OSError as error:
            error.filename = str(self.own)  # a full disk does not say where
            raise

    def remove(self) -> None:
        """Remove all files, the mark last: as long as it is there, the run can be resumed or replaced."""
        for path in self._files():
            path.unlink()
        (self.folder / unfinished_evaluation(self.name)).unlink(missing_ok=True)

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob(unfinished_answers(self.name, "*")))
