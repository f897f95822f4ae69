import gzip
import json

import pytest
from conftest import write_jsonl

from domain_tokens.data.conversations import UnusableRow, gsm8k_conversation, tulu_conversation, without_reserved_tokens
from domain_tokens.data.readers import open_rows
from domain_tokens.data.splits import check_rows, split_rows
from domain_tokens.runs.errors import InputError

GOOD = {"question": "What is 6 times 9?", "answer": "6*9=<<6*9=54>>54\n#### 54"}


def rows_of(path, split="train"):
    rows = open_rows(str(path), None, split)
    return [rows.read(i) for i in range(len(rows))]


def test_folders_files_and_formats_give_the_same_rows(tmp_path):
    import datasets

    expected = [GOOD, GOOD | {"question": "Café\u2028?"}]
    write_jsonl(tmp_path / "a/train.jsonl", expected)
    (tmp_path / "b").mkdir()
    text = "\ufeff" + "\r\n\r\n".join(json.dumps(row, ensure_ascii=False) for row in expected)
    (tmp_path / "b/train.jsonl").write_bytes(text.encode())  # byte-order mark, Windows line ends, a blank line
    (tmp_path / "c").mkdir()
    (tmp_path / "c/train.jsonl.gz").write_bytes(gzip.compress((tmp_path / "a/train.jsonl").read_bytes()))
    table = datasets.Dataset.from_list(expected)
    (tmp_path / "d/main").mkdir(parents=True)
    table.select([0]).to_parquet(tmp_path / "d/main/train-00000-of-00002.parquet")
    table.select([1]).to_parquet(tmp_path / "d/main/train-00001-of-00002.parquet")
    for place in ("a", "a/train.jsonl", "b", "c", "d"):
        assert rows_of(tmp_path / place) == expected, place


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
        ("train.txt", b"x", "no known kind"),
        ("train.jsonl.gz", gzip.compress(b"{}" * 1000)[:-9], "cannot be read to its end"),
        ("train.parquet", b"nonsense", "not readable Parquet"),
    ],
)
def test_an_unreadable_file_is_refused(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        open_rows(str(tmp_path / name), None, "train")


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
