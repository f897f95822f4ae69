import bz2
import gzip
import json

import pytest
from conftest import write_jsonl

from domain_tokens.data.conversations import (
    UnusableRow,
    conversation_of_any,
    gsm8k_conversation,
    tulu_conversation,
    without_reserved_tokens,
)
from domain_tokens.data.readers import open_rows
from domain_tokens.data.splits import check_rows, split_rows
from domain_tokens.runs.errors import InputError

GOOD = {"question": "What is 6 times 9?", "answer": "6*9=<<6*9=54>>54\n#### 54"}


def rows_of(path, split="train"):
    rows = open_rows(str(path), None, split)
    return [rows.read(i) for i in range(len(rows))]


def lines(rows):
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def rows_in(folder, form):
    """Write three rows in one of the forms that datasets come in, and return them."""
    import datasets

    rows = [GOOD, GOOD | {"question": "Café\u2028?"}, GOOD | {"question": "[b]?"}]
    table = datasets.Dataset.from_list(rows)
    folder.mkdir()
    if form == "save_to_disk":
        table.save_to_disk(folder / "train")
        return rows
    if form == "save_to_disk of several splits":
        datasets.DatasetDict(train=table, test=table.select([0])).save_to_disk(folder)
        return rows
    text = "\ufeff" + "\r\n\r\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    files = {
        "lines": {
            "train.jsonl": lines(rows), "train-old.jsonl": b"{}", "train.backup.jsonl": b"{}", "train.txt": b"notes",
            "main/train.jsonl": b"",
        },
        "Windows lines": {"train.jsonl": text.encode()},  # byte-order mark, blank lines
        "gzip": {"train.jsonl.gz": gzip.compress(lines(rows))},
        ".json.gz": {"train.json.gz": gzip.compress(lines(rows))},
        "bzip2": {"train.jsonl.bz2": bz2.compress(lines(rows))},
        "an array": {"train.json": json.dumps(rows, indent=2).encode()},
        "shards of lines": {
            "train-00000-of-00002.jsonl": lines(rows[:2])[:-1], "train-00001-of-00002.jsonl": lines(rows[2:]),
        },
        "numbered lines": {"train.0.jsonl": lines(rows[:2]), "train.1.jsonl": lines(rows[2:])},
        "C4's shards": {
            "train.00000-of-00002.json.gz": gzip.compress(lines(rows[:1])),
            "train.00001-of-00002.json.gz": gzip.compress(lines(rows[1:])),
        },
        "shards of arrays": {
            "train-00000-of-00003.json": json.dumps(rows[:1]).encode(), "train-00001-of-00003.json": b"\n[]",
            "train-00002-of-00003.json": b"\xef\xbb\xbf" + json.dumps(rows[1:], indent=1).encode(),
        },
        "a folder of arrays": {
            "train/a.json": json.dumps(rows[:2]).encode(), "train/b.json": json.dumps(rows[2:]).encode(),
        },
        "a folder of lines": {"train/a.jsonl": lines(rows[:1]), "train/b.jsonl": lines(rows[1:]), "test/a.jsonl": b""},
        "a name of no split": {"mine.jsonl": lines(rows)},
        "numbered names of no split": {"part-1.jsonl": lines(rows[1:]), "part-0.jsonl": lines(rows[:1])},
        "a name that the library does not know": {"TrainSet.jsonl": lines(rows)},
        "Parquet": {"train.parquet": [0, 1, 2]},
        "Spark's folder": {
            "train.parquet/part-00000-c0.snappy.parquet": [0], "train.parquet/part-00001-c0.snappy.parquet": [1, 2],
        },
        "empty shards": {
            "train-00000-of-00003.parquet": [], "train-00001-of-00003.parquet": [0, 1, 2],
            "train-00002-of-00003.parquet": [],
        },
        "GSM8K's shards": {
            "main/train-00000-of-00002.parquet": [0], "main/train-00001-of-00002.parquet": [1, 2],
            "socratic/train-00000-of-00001.parquet": [0],
        },
        "shards with a fingerprint": {
            "data/train-00000-of-00002-0123456789abcdef.parquet": [0, 1],
            "data/train-00001-of-00002-fedcba9876543210.parquet": [2], "data/test-00000-of-00001-0a.parquet": [0],
        },
        "converted by the Hub": {"default/train/0000.parquet": [0, 1], "default/train/0001.parquet": [2]},
    }[form]  # fmt: skip
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            (folder / name).write_bytes(content)
        else:
            table.to_pandas().iloc[content].to_parquet(folder / name, index=False)
    return rows


@pytest.mark.parametrize(
    "form",
    [
        "lines", "Windows lines", "gzip", ".json.gz", "bzip2", "an array", "shards of lines", "numbered lines",
        "C4's shards", "shards of arrays", "a folder of arrays", "a folder of lines", "a name of no split",
        "numbered names of no split", "a name that the library does not know", "Parquet", "Spark's folder",
        "empty shards", "GSM8K's shards", "shards with a fingerprint", "converted by the Hub", "save_to_disk",
        "save_to_disk of several splits",
    ],
)  # fmt: skip
def test_whatever_form_a_dataset_has_its_rows_are_the_same(tmp_path, monkeypatch, form):
    expected = rows_in(tmp_path / "data", form)
    monkeypatch.chdir(tmp_path)
    rows = open_rows("data", None, "train")
    assert [rows.read(i) for i in range(len(rows))] == expected
    assert list(rows.numbers) == ([1, 3, 5] if form == "Windows lines" else [1, 2, 3])
    digest = rows.digest()
    assert open_rows(str(tmp_path / "data"), None, "train").digest() == digest


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("Train.jsonl", "Test.jsonl"), ("TRAIN.jsonl", "TEST.jsonl"), ("trainset.jsonl", "testset.jsonl"),
        ("traindata.jsonl", "testdata.jsonl"), ("gsm8kTrain.jsonl", "gsm8kTest.jsonl"), ("trn.jsonl", "tst.jsonl"),
        ("Train/a.jsonl", "Test/a.jsonl"), ("train/train.jsonl", "train/test.jsonl"), ("mine.jsonl", "exam.jsonl"),
        ("Training.ndjson", "Valset.ndjson"),
    ],
)  # fmt: skip
def test_no_test_question_is_trained_on_for_its_file_s_name(tmp_path, train, test):
    for name in (train, test):
        (tmp_path / "both" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "both" / name).write_bytes(lines([GOOD]))
    with pytest.raises(InputError, match="both holds .*, expected .*; name one file, or move"):
        open_rows(str(tmp_path / "both"), None, "train")
    assert rows_of(tmp_path / "both" / train) == [GOOD], "the way out"


@pytest.mark.parametrize(
    "name", ["Test.jsonl", "gsm8kTest.jsonl", "TST-0.jsonl", "HeldOut.jsonl", "my-train/test.jsonl"]
)
def test_a_lone_file_of_another_split_is_no_training_data(tmp_path, name):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(lines([GOOD]))
    with pytest.raises(InputError, match=f"holds {name}, expected"):
        open_rows(str(tmp_path), None, "train")


def test_a_subset_is_the_folder_of_its_name(tmp_path):
    for name in (
        "main/train.jsonl",
        "socratic/train.jsonl",
        "plain/train.jsonl",
        "hub/data/train-00000-of-00001.jsonl",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(lines([{"question": name}]))

    def read(folder, subset):
        rows = open_rows(str(tmp_path / folder), subset, "train")
        return [rows.read(i)["question"] for i in range(len(rows))]

    assert read(".", "socratic") == ["socratic/train.jsonl"]
    assert read(".", "main") == read(".", None) == ["main/train.jsonl"]
    assert read("plain", "main") == ["plain/train.jsonl"]
    assert read("hub", "main") == ["hub/data/train-00000-of-00001.jsonl"]
    with pytest.raises(InputError, match="has no subset fr, only hub, main, plain, socratic; name the folder of one"):
        read(".", "fr")


def test_a_saved_split_answers_for_no_other(tmp_path):
    import datasets

    for split in ("train", "train[:50%]", "train_sft", "test"):
        table = datasets.Dataset.from_list([{"split": split}], split=datasets.NamedSplit(split))
        table.save_to_disk(tmp_path / split)
    for split in ("train", "train[:50%]"):
        saved = (tmp_path / split).rename(tmp_path / f"saved {split}")
        assert rows_of(saved) == [{"split": split}]
        with pytest.raises(InputError, match="holds the split train.*, expected test"):
            open_rows(str(saved), None, "test")
    assert rows_of(tmp_path / "train_sft") == [{"split": "train_sft"}]
    with pytest.raises(InputError, match="holds the split test, expected train"):
        open_rows(str(tmp_path / "test"), None, "train")


@pytest.mark.parametrize("form", ["numpy", "pandas"])
def test_a_table_saved_in_another_format_is_read_as_plain_values(tmp_path, form):
    import datasets

    row = {"messages": [{"role": "user", "content": "6*9?"}, {"role": "assistant", "content": "54"}]}
    datasets.Dataset.from_list([row]).with_format(form).save_to_disk(tmp_path / "saved")
    assert rows_of(tmp_path / "saved") == [row]


def test_pictures_and_sounds_are_not_looked_at(tmp_path):
    import datasets
    import pyarrow
    from pyarrow.parquet import write_table

    kinds = {"picture": datasets.Image(), "pictures": datasets.List(datasets.Image()), "sound": datasets.Audio()}
    schema = datasets.Features({"question": datasets.Value("string")} | kinds).arrow_schema
    broken = {"bytes": b"neither", "path": None}
    row = {"question": "What?", "picture": broken, "pictures": [broken], "sound": broken}
    write_table(pyarrow.Table.from_pylist([row], schema=schema), tmp_path / "train.parquet")
    assert rows_of(tmp_path) == [{"question": "What?"}]


def test_one_file_is_read_as_it_stands_whatever_its_name(tmp_path):
    write_jsonl(tmp_path / "mine.jsonl", [GOOD])
    (tmp_path / "table[1].csv").write_text('question,answer\n"What, is 6 times 9?","#### 54"\n')
    assert rows_of(tmp_path / "mine.jsonl") == [GOOD]
    assert rows_of(tmp_path / "table[1].csv", "test") == [{"question": "What, is 6 times 9?", "answer": "#### 54"}]


def test_lines_are_counted_through_all_shards(tmp_path):
    (tmp_path / "train-00000-of-00002.jsonl").write_bytes(lines([GOOD] * 60))
    (tmp_path / "train-00001-of-00002.jsonl").write_bytes(lines([GOOD] * 50) + b"\n{" + lines([GOOD] * 9))
    _, unusable = check_rows(open_rows(str(tmp_path), None, "train"), gsm8k_conversation)
    assert [reason["first_line"] for reason in unusable.values()] == [112]


def test_a_dataset_that_changes_on_disk_has_another_digest(tmp_path):
    import datasets

    digests = set()
    for answer in ("54", "45"):
        datasets.Dataset.from_list([{"question": "What?", "answer": answer}]).save_to_disk(tmp_path / "saved")
        digests.add(open_rows(str(tmp_path / "saved"), None, "train").digest())
    assert len(digests) == 2


def test_sharegpt_rows_are_conversations():
    row = {"conversations": [
        {"from": "system", "value": "Be brief."}, {"from": "human", "value": "6*9?"}, {"from": "gpt", "value": "54"},
    ]}  # fmt: skip
    assert tulu_conversation(row) == [
        {"role": "system", "content": "Be brief."}, {"role": "user", "content": "6*9?"},
        {"role": "assistant", "content": "54"},
    ]  # fmt: skip
    with pytest.raises(UnusableRow, match="unknown role"):
        tulu_conversation({"conversations": [{"from": "bing", "value": "54"}]})


def test_a_row_with_messages_and_an_answer_is_a_chat():
    chat = [{"role": "user", "content": "6*9?"}, {"role": "assistant", "content": "54"}]
    assert conversation_of_any({"problem": "6*9?", "answer": "54", "messages": chat}) == chat
    assert conversation_of_any(GOOD | {"messages": None}) == gsm8k_conversation(GOOD)
    with pytest.raises(UnusableRow, match="no messages"):
        conversation_of_any({"messages": []})


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"{", "broken JSON"),
        (b"[" * 100_000, "broken JSON"),
        (b"5", "not a JSON object"),
        (b"\xff\xfe", "not UTF-8"),
        (b'{"n": ' + b"9" * 5000 + b"}", "broken JSON"),
        (b'{"question": "caf\\ud83d?", "answer": "#### 5"}', "not valid Unicode"),
        (b'{"question": "a?"}', "no answer"),
        (b'{"question": "a?", "answer": null}', "no answer"),
        (b'{"question": "a?", "answer": " "}', "empty answer"),
        (b'{"question": "a?", "answer": "5"}', "answer without ####"),
        (b'{"question": "<MUL_6_9_54>?", "answer": "#### 5"}', "reserved token <MUL_6_9_54>"),
        (b'{"question": "a?", "answer": "<|endoftext|> #### 5"}', "reserved token <|endoftext|>"),
    ],
)
def test_an_unusable_row_is_counted_by_reason_with_its_first_line(tmp_path, toy_tokenizer, line, reason):
    path = tmp_path / "train.jsonl"
    good = json.dumps(GOOD).encode()
    path.write_bytes(b"\n".join([good] * 150 + [line] + [good] * 250 + [line] + [good] * 10))
    convert = without_reserved_tokens(gsm8k_conversation, toy_tokenizer)
    usable, unusable = check_rows(open_rows(str(path), None, "train"), convert)
    assert len(usable) == 410
    ((found, counts),) = unusable.items()
    assert reason in found
    assert counts == {"rows": 2, "first_line": 151}


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        (None, "no messages"),
        ([], "no messages"),
        ([{"role": "tool", "content": "x"}], "unknown role"),
        ([{"role": "user", "content": None}], "content is not text"),
        ([{"role": "user", "content": ["x"]}], "content is not text"),
        ([{"role": "user", "content": "x"}, {"role": "assistant", "content": ""}], "empty answer"),
        ([{"role": "system", "content": "x"}], "no assistant message"),
    ],
)
def test_an_unusable_conversation_says_why(messages, reason):
    with pytest.raises(UnusableRow, match=reason):
        tulu_conversation({"id": "1", "messages": messages})


def test_more_than_one_percent_unusable_rows_stop_the_run(tmp_path):
    path = write_jsonl(tmp_path / "train.jsonl", [GOOD] * 98 + [{}] * 2)
    with pytest.raises(InputError, match="2 of 100 rows cannot be used.*no question, first in line 99"):
        check_rows(open_rows(str(path), None, "train"), gsm8k_conversation)


@pytest.mark.parametrize("text", ["", "\n\n"])
def test_a_file_without_rows_stops_the_run(tmp_path, text):
    (tmp_path / "train.jsonl").write_text(text)
    with pytest.raises(InputError, match="holds no rows"):
        check_rows(open_rows(str(tmp_path), None, "train"), gsm8k_conversation)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("train.txt", b"x", "no known kind; convert it to JSON lines, a JSON array"),
        ("train.jsonl.gz", gzip.compress(b"{}" * 1000, mtime=0)[:-9], "cannot be read to its end"),
        ("train.parquet", b"nonsense", "not readable Parquet"),
        ("train.parquet", b"", "not readable Parquet"),
        ("train.arrow", b"nonsense", "not readable Arrow"),
        ("train.csv", b"\xff\xfe\x00", "not readable CSV"),
        ("train.jsonl.bz2", b"nonsense", "not readable JSON"),
    ],
)
def test_an_unreadable_file_is_refused(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        open_rows(str(tmp_path / name), None, "train")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"train-00000-of-00003.parquet": b""}, "holds train-00000-of-00003.parquet, expected all of one set"),
        (
            {"train-00000-of-00001.jsonl": b"{}", "train-00000-of-00001-0a.jsonl": b"{}"},
            "holds train-00000-of-00001-0a.jsonl, train-00000-of-00001.jsonl, expected all of one set",
        ),
        ({"train.00001-of-00002.json.gz": b""}, "expected all of one set of train shards"),
        (
            {"train.json": b"[]", "train.jsonl": b"{}"},
            "holds train.json, train.jsonl, expected one train file; name one",
        ),
        ({"data/train-old-00000-of-00001.jsonl": b"{}"}, "has no train file"),
        ({"train-a.jsonl": b"{}", "train-b.parquet": b""}, "expected train files of one kind; name one of them"),
        ({"train-a.txt": b"x"}, "has no train file; .* with JSON lines, a JSON array, Parquet, Arrow or CSV"),
        ({"test.jsonl": b"{}"}, "has no train file"),
        ({"train/state.json": b"{}"}, "not readable output of save_to_disk"),
        ({"train/state.json": b"{", "train/data-00000-of-00001.arrow": b"x"}, "not readable output of save_to_disk"),
    ],
)
def test_a_folder_that_is_not_clear_is_refused_with_the_way_out(tmp_path, files, message):
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        open_rows(str(tmp_path), None, "train")


def test_a_missing_place_or_split_is_refused(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        open_rows(str(tmp_path / "none"), None, "train")
    with pytest.raises(InputError, match="no train file"):
        open_rows(str(tmp_path), None, "train")


def test_training_and_validation_rows_are_disjoint_and_seeded():
    train, val = split_rows(range(100), None, 10, seed=1)
    assert sorted([*train, *val]) == list(range(100))
    assert len(val) == 10
    assert split_rows(range(100), None, 10, seed=1) == (train, val)
    assert split_rows(range(100), None, 10, seed=2) != (train, val)
    few, few_val = split_rows(range(100), 30, 10, seed=1)
    assert (few, few_val) == (train[:30], val)


def test_validation_never_takes_more_than_a_fifth_nor_more_than_is_trained_on():
    assert [len(part) for part in split_rows(range(50), None, 1000, seed=1)] == [40, 10]
    assert [len(part) for part in split_rows(range(50), 4, 1000, seed=1)] == [4, 4]
    assert [len(part) for part in split_rows(range(4), None, 1000, seed=1)] == [4, 0]
