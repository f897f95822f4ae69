"""Rows are prepared once, are the same from disk as from memory, and are never stale."""

import copy
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import write_jsonl
from filelock import FileLock

from domain_tokens.conditions import CONDITIONS
from domain_tokens.data.cache import _RULES, prepare_training_data
from domain_tokens.data.conversations import gsm8k_conversation, tulu_conversation
from domain_tokens.data.parallel import map_rows
from domain_tokens.data.prepared import cut_warning, prepare
from domain_tokens.prompt import IGNORED_LABEL
from domain_tokens.runs.config_schema import DataConfig
from domain_tokens.runs.errors import InputError, RunError

GOOD = {"question": "What is 6 times 9?", "answer": "6*9=<<6*9=54>>54\n#### 54"}


def data_config(path, max_length=64, val_samples=0):
    return DataConfig(
        dataset=str(path), subset=None, max_length=max_length, train_samples=None, val_samples=val_samples
    )


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    return tmp_path / "home/domain_tokens"


@pytest.fixture
def config(tmp_path):
    rows = [GOOD | {"question": f"What is {i} times 9?"} for i in range(40)]
    return data_config(write_jsonl(tmp_path / "train.jsonl", rows), val_samples=5)


def entries(cache):
    return {path.parent.name for path in cache.glob("*/about.json")}


def test_facts_are_injected_into_assistant_text_only(toy_tokenizer):
    talk = [{"role": "user", "content": "6*9"}, {"role": "assistant", "content": "6*9=54"}]
    with_facts = prepare(iter([talk]), toy_tokenizer, 64, "assistant", CONDITIONS["mul_tokens"])
    without = prepare(iter([talk]), toy_tokenizer, 64, "assistant", CONDITIONS["baseline"])
    assert toy_tokenizer.decode(with_facts[0]["input_ids"]) == "User: 6*9\nAssistant: <MUL_6_9_54><|endoftext|>"
    assert toy_tokenizer.decode(without[0]["input_ids"]) == "User: 6*9\nAssistant: 6*9=54<|endoftext|>"
    assert with_facts.injected == {"<MUL_6_9_54>": 1}
    assert without.injected.total() == 0


def test_long_rows_are_cut_and_rows_without_a_trained_token_dropped(toy_tokenizer):
    talks = [[{"role": "user", "content": "5"}, {"role": "assistant", "content": "7 " * n}] for n in (1, 30)] + [
        [{"role": "user", "content": "7 " * 30}, {"role": "assistant", "content": "5"}]
    ]
    prepared = prepare(iter(talks), toy_tokenizer, 20, "assistant", CONDITIONS["baseline"])
    assert prepared.counts()["kept"] == 2
    assert prepared.counts()["cut"] == 1
    assert prepared.counts()["dropped"] == 1
    assert len(prepared[1]["input_ids"]) == 20


def lengths(tokenizer, numbers):
    """One conversation for each number, so many digits long, and how many tokens the shortest of them has."""
    talks = [[{"role": "user", "content": "5"}, {"role": "assistant", "content": "7" * number}] for number in numbers]
    return talks, len(prepare(talks[:1], tokenizer, 999, "all", CONDITIONS["baseline"])[0]["input_ids"]) - numbers[0]


def test_more_than_one_percent_of_cut_rows_deserve_a_warning_with_a_length_that_would_do(toy_tokenizer):
    talks, frame = lengths(toy_tokenizer, [1] * 194 + [60, 50, 40, 30, 31, 32])
    prepared = prepare(talks, toy_tokenizer, frame + 29, "assistant", CONDITIONS["baseline"])
    assert cut_warning(prepared, frame + 29, 1024) == (
        f"warning: 6 of 200 training rows (3.0%) are longer than data.max_length {frame + 29} and lose their end; "
        f"max_length={frame + 40} would cut at most 1%\n"
    )
    assert cut_warning(prepared, frame + 29, frame + 39).endswith(f"but the model has only {frame + 39} positions\n")
    again = prepare(talks, toy_tokenizer, frame + 40, "assistant", CONDITIONS["baseline"])
    assert again.counts()["cut"] == 2
    assert cut_warning(again, frame + 40, 1024) is None


def test_rows_that_were_dropped_for_their_length_count_as_cut(toy_tokenizer):
    talks = [[{"role": "user", "content": "7" * 40}, {"role": "assistant", "content": "5"}]] * 3
    prepared = prepare(talks, toy_tokenizer, 20, "assistant", CONDITIONS["baseline"])
    assert (len(prepared), prepared.dropped, len(prepared.too_long)) == (0, 3, 3)
    assert "3 of 3 training rows (100.0%)" in cut_warning(prepared, 20, 1024)


def test_trained_tokens_are_what_the_loss_is_averaged_over(toy_tokenizer):
    talk = gsm8k_conversation(GOOD)
    prepared = prepare(iter([talk, talk]), toy_tokenizer, 512, "assistant", CONDITIONS["baseline"])
    assert prepared.trained_tokens == 2 * int(np.sum(prepared[0]["labels"] != IGNORED_LABEL))
    every = prepare(iter([talk]), toy_tokenizer, 512, "all", CONDITIONS["baseline"])
    assert every.trained_tokens == len(every[0]["input_ids"]) - 1  # nothing predicts the first token


def test_a_split_with_nothing_to_train_on_stops_the_run_and_leaves_nothing(tmp_path, toy_tokenizer, own_cache):
    config = data_config(write_jsonl(tmp_path / "train.jsonl", [GOOD] * 10), max_length=3)
    with pytest.raises(InputError, match="no row has a token to train on"):
        prepare_training_data(config, 1, gsm8k_conversation, toy_tokenizer, CONDITIONS["baseline"])
    assert not entries(own_cache)


def test_rows_from_disk_are_those_from_memory_whatever_the_processes(config, toy_tokenizer, own_cache, monkeypatch):
    monkeypatch.setattr("domain_tokens.data.cache._CHUNK", 3)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2})
    train, val, left_out = prepare_training_data(config, 1, gsm8k_conversation, toy_tokenizer, CONDITIONS["mul_tokens"])
    texts = [toy_tokenizer.decode(row["input_ids"]) for row in (*train, *val)]
    asked = [text.split(" times")[0].removeprefix("User: What is ") for text in texts]
    assert sorted(map(int, asked)) == list(range(40))
    assert all(text.endswith("Assistant: <MUL_6_9_54>=<<<MUL_6_9_54>>>54\n#### 54<|endoftext|>") for text in texts)
    alone = prepare([gsm8k_conversation(GOOD)], toy_tokenizer, 64, "assistant", CONDITIONS["mul_tokens"])
    trained = alone[0]["labels"] != IGNORED_LABEL
    for row in (*train, *val):
        assert row["labels"][-trained.sum() :].tolist() == alone[0]["labels"][trained].tolist()
        assert (row["labels"] != IGNORED_LABEL).sum() == trained.sum()
    assert train.counts() | {"tokens": 0} == {
        "kept": 35, "cut": 0, "dropped": 0, "injected_mul_tokens": 70, "tokens": 0,
        "trained_tokens": 35 * int(trained.sum()),
    }  # fmt: skip
    assert (len(val), left_out) == (5, {"unusable": {}, "contaminated": None})


def test_a_part_without_a_usable_row_does_no_harm(tmp_path, toy_tokenizer, own_cache, monkeypatch):
    monkeypatch.setattr("domain_tokens.data.cache._CHUNK", 1)
    rows = [GOOD if i % 3 else GOOD | {"question": "7 " * 80} for i in range(12)]  # a third has no room for its answer
    config = data_config(write_jsonl(tmp_path / "train.jsonl", rows))
    train, _, _ = prepare_training_data(config, 1, gsm8k_conversation, toy_tokenizer, CONDITIONS["mul_tokens"])
    assert (len(train), train.counts()["dropped"]) == (8, 4)
    assert len({tuple(row["labels"].tolist()) for row in train}) == 1


def test_the_second_time_nothing_is_prepared(config, toy_tokenizer, own_cache, monkeypatch):
    first = prepare_training_data(config, 1, gsm8k_conversation, toy_tokenizer, CONDITIONS["mul_tokens"])
    monkeypatch.setattr("domain_tokens.data.cache.split_training_rows", None)  # would fail if it were called
    second = prepare_training_data(config, 1, gsm8k_conversation, toy_tokenizer, CONDITIONS["mul_tokens"])
    assert isinstance(second[0].ids, np.memmap)
    assert first[0].too_long == second[0].too_long
    for one, other in zip(first[:2], second[:2], strict=True):
        assert one.counts() == other.counts()
        assert all((a["labels"] == b["labels"]).all() for a, b in zip(one, other, strict=True))
    assert first[2] == second[2]


def test_rows_are_prepared_again_after_any_change_that_decides_them(
    config, toy_tokenizer, own_cache, monkeypatch, tmp_path
):
    tokenizer = copy.deepcopy(toy_tokenizer)

    def prepare_again(config=config, seed=1, condition="mul_tokens"):
        before = entries(own_cache)
        prepare_training_data(config, seed, gsm8k_conversation, tokenizer, CONDITIONS[condition])
        return len(entries(own_cache) - before)

    assert prepare_again() == 1
    assert prepare_again() == 0
    assert prepare_again(seed=2) == 1
    for condition in ("baseline", "annotated", "placebo"):
        assert prepare_again(condition=condition) == 1, condition
    for change in ({"max_length": 60}, {"train_samples": 9}, {"val_samples": 3}, {"loss_on": "all"}):
        assert prepare_again(config.model_copy(update=change)) == 1, change

    moved = config.model_copy(update={"dataset": str(tmp_path / "moved.jsonl")})
    text = (tmp_path / "train.jsonl").read_bytes()
    (tmp_path / "moved.jsonl").write_bytes(text)
    assert prepare_again(moved) == 0, "the same rows in another place"
    (tmp_path / "moved.jsonl").write_bytes(text.replace(b"54", b"45", 1))
    assert prepare_again(moved) == 1

    tokenizer.add_tokens(["<never>"])
    assert prepare_again() == 1
    rules = tmp_path / "rules"
    (rules / "data").mkdir(parents=True)
    for name in _RULES:
        (rules / name).write_text("as it was")
    monkeypatch.setattr("domain_tokens.data.cache._PACKAGE", rules)
    assert prepare_again() == 1
    (rules / "inject.py").write_text("changed")
    assert prepare_again() == 1
    assert prepare_again() == 0


def test_an_interrupted_preparation_is_done_again(config, toy_tokenizer, own_cache):
    prepare_training_data(config, 1, gsm8k_conversation, toy_tokenizer, CONDITIONS["mul_tokens"])
    (name,) = entries(own_cache)
    about = json.loads((own_cache / name / "about.json").read_text())
    (own_cache / name / "about.json").unlink()
    (own_cache / name / "train.ids.npy").write_bytes(b"half of")
    train, _, _ = prepare_training_data(config, 1, gsm8k_conversation, toy_tokenizer, CONDITIONS["mul_tokens"])
    assert len(train) == 35
    assert json.loads((own_cache / name / "about.json").read_text()) == about


def test_rows_unused_for_a_month_are_removed(config, toy_tokenizer, own_cache):
    prepare_training_data(config, 1, gsm8k_conversation, toy_tokenizer, CONDITIONS["mul_tokens"])
    (old,) = entries(own_cache)
    month_ago = time.time() - 31 * 24 * 3600
    os.utime(own_cache / old, (month_ago, month_ago))
    prepare_training_data(config, 2, gsm8k_conversation, toy_tokenizer, CONDITIONS["mul_tokens"])
    assert old not in entries(own_cache)
    assert len(entries(own_cache)) == 1


def test_a_folder_that_cannot_be_written_is_an_error_of_one_line(config, toy_tokenizer, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "file"))
    with pytest.raises(RunError, match="cannot be kept.*set HF_HOME"):
        prepare_training_data(config, 1, gsm8k_conversation, toy_tokenizer, CONDITIONS["mul_tokens"])


def test_an_error_of_reading_is_not_taken_for_one_of_writing(config, toy_tokenizer, own_cache):
    def unreadable(row):
        raise OSError("the disk of the dataset")

    with pytest.raises(OSError, match="the disk of the dataset"):
        prepare_training_data(config, 1, unreadable, toy_tokenizer, CONDITIONS["mul_tokens"])
    assert not entries(own_cache)


@pytest.mark.parametrize(
    "damage", ["train.ids.npy", "val.trained.npy", "train.offsets.npy", "val.offsets.npy", "about.json"]
)
def test_damaged_rows_are_prepared_again(config, toy_tokenizer, own_cache, damage):
    first, _, _ = prepare_training_data(config, 1, gsm8k_conversation, toy_tokenizer, CONDITIONS["mul_tokens"])
    expected = [row["labels"].tolist() for row in first]
    (name,) = entries(own_cache)
    for spoil in (lambda path: path.write_bytes(b""), lambda path: path.unlink(), flip_a_bit, zero_the_end):
        spoil(own_cache / name / damage)
        again, _, _ = prepare_training_data(config, 1, gsm8k_conversation, toy_tokenizer, CONDITIONS["mul_tokens"])
        assert [row["labels"].tolist() for row in again] == expected


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[-9] ^= 1  # in an array's values, or in a digest
    path.write_bytes(content)


def zero_the_end(path):
    """What a power cut leaves: the right size, but nothing in the last blocks."""
    content = path.read_bytes()
    path.write_bytes(content[:140] + bytes(len(content) - 140))


def test_another_parquet_file_of_the_same_name_and_time_is_read(tmp_path, toy_tokenizer, own_cache):
    import datasets

    path = tmp_path / "train.parquet"
    config = data_config(path)
    for answer in ("54", "45"):
        datasets.Dataset.from_list([{"question": "What?", "answer": f"#### {answer}"}] * 5).to_parquet(path)
        os.utime(path, (1, 1))
        train, _, _ = prepare_training_data(config, 1, gsm8k_conversation, toy_tokenizer, CONDITIONS["baseline"])
        assert f"#### {answer}<|endoftext|>" in toy_tokenizer.decode(train[0]["input_ids"])


def test_rows_that_another_process_uses_are_not_removed(config, toy_tokenizer, own_cache):
    (own_cache / "old").mkdir(parents=True)
    os.utime(own_cache / "old", (1, 1))
    with FileLock(own_cache / "old.lock"):
        prepare_training_data(config, 1, gsm8k_conversation, toy_tokenizer, CONDITIONS["mul_tokens"])
        assert (own_cache / "old").exists()
    prepare_training_data(config, 2, gsm8k_conversation, toy_tokenizer, CONDITIONS["mul_tokens"])
    assert not (own_cache / "old").exists(), "left incomplete by an interrupted run"


def test_no_process_outlives_the_one_that_waits_for_it():
    code = (
        "import os, time\nfrom domain_tokens.data.parallel import map_rows\n"
        "os.sched_getaffinity = lambda pid: {0, 1}\n"
        "def work(rows):\n    os.write(1, b'%d\\n' % os.getpid())\n    time.sleep(60)\n"  # whole lines, one write each
        "list(map_rows(work, [1, 2], 1, 'working'))\n"
    )
    waiting = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    workers = [int(waiting.stdout.readline()) for _ in range(2)]
    waiting.kill()
    waiting.wait()
    deadline = time.monotonic() + 10
    while any(is_running(worker) for worker in workers):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_killed_process_is_an_error_instead_of_an_endless_wait(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1})
    with pytest.raises(RunError, match="was killed"):
        list(map_rows(lambda rows: os.kill(os.getpid(), 9), [1, 2, 3], 1, "working"))


def test_an_error_in_another_process_arrives(tmp_path, monkeypatch, toy_tokenizer, own_cache):
    monkeypatch.setattr("domain_tokens.data.cache._CHUNK", 3)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1})
    rows = [{"id": "1", "messages": [{"role": "assistant", "content": "5"}]}] * 20
    config = data_config(write_jsonl(tmp_path / "train.jsonl", rows))
    monkeypatch.setattr("domain_tokens.data.prepared.encode_conversations", lambda *args: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        prepare_training_data(config, 1, tulu_conversation, toy_tokenizer, CONDITIONS["baseline"])
    assert not entries(own_cache)
