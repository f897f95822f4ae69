"""When training text shares words with a question, what is reported, and what a stage leaves out."""

import json
import subprocess
import sys
from pathlib import Path

import check_contamination
import pytest
import sft_gsm8k
import sft_tulu
from conftest import SHARED, write_jsonl

from domain_tokens.conditions import CONDITIONS
from domain_tokens.data.cache import _RULES, cache_folder, prepare_training_data
from domain_tokens.data.contamination import NGRAM, Questions, words, words_and_numbers
from domain_tokens.data.conversations import tulu_conversation
from domain_tokens.data.readers import open_rows
from domain_tokens.runs.config_schema import DataConfig
from domain_tokens.runs.errors import InputError

ROOT = Path(__file__).parents[2]

THIRTEEN = "one two three four five six seven eight nine ten eleven twelve thirteen"
STAMPS = (
    "Bella bought stamps at the post office. Some of the stamps had a snowflake design, some had a truck design. "
    "If she has 16 rose stamps, how many stamps did Bella buy in all?"
)
OTHER = "A robe takes 2 bolts of blue fiber and half that much white fiber. How many bolts in total does it take?"
STAMPS_WITH_OTHER_NUMBERS = "IF SHE HAS $1,250.50 ROSE-STAMPS: how many stamps did Bella buy in all?!"
TEST_ROWS = [{"question": STAMPS, "answer": "#### 38"}, {"question": OTHER, "answer": "#### 3"}]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The CAT, the cat... (the cat)!", ["the", "cat", "the", "cat", "the", "cat"]),
        ("don't don’t dont", ["dont", "dont", "dont"]),
        ("well-known\nsnake_case a/b", ["well", "known", "snake", "case", "a", "b"]),
        ("5 apples, $1,234.50, 12 cats", ["#", "apples", "#", "cats"]),
        ("6*9=<<6*9=54>>54 apples", ["#", "apples"]),
        ("#### 54", ["#"]),
        ("# of cats", ["of", "cats"]),
        ("the 5th km: 10km", ["the", "#", "th", "km", "#", "km"]),
        ("1, 2, 3 and 4 5 6", ["#", "and", "#"]),
        ("½ of ２３ is ٣", ["#", "of", "#", "is", "#"]),
        ("three", ["three"]),
        ("Straße STRASSE Ｃａｆé cafe\u0301", ["strasse", "strasse", "café", "café"]),
        ("soft\u00adened\u00a0word", ["softened", "word"]),
        ("ﬁne — “quoted” … 😀", ["fine", "quoted"]),
        ("?! …", []),
        ("", []),
    ],
)
def test_words_are_without_case_punctuation_and_values_of_numbers(text, expected):
    assert words(text) == expected


def test_numbers_can_be_kept_without_their_commas():
    assert words_and_numbers("Pay $1,234.50, or 6*9.") == ["pay", "1234.50", "or", "6", "9"]


@pytest.mark.parametrize(
    ("text", "is_shared"),
    [
        (THIRTEEN, True),
        (f"Say: {THIRTEEN.upper().replace(' ', ', ')}!", True),
        (f"zero {THIRTEEN} fourteen", True),
        (THIRTEEN.removeprefix("one "), False),
        (THIRTEEN.removesuffix(" thirteen"), False),
        (THIRTEEN.replace("seven", "seven point"), False),
        (THIRTEEN.replace("seven", "seventh"), False),
        (THIRTEEN.replace("eight nine", "nine eight"), False),
        ("", False),
    ],
)
def test_a_question_of_thirteen_words_is_shared_where_all_stand_in_a_row(text, is_shared):
    assert NGRAM == 13
    assert Questions([THIRTEEN]).shared([text]) == ({0: THIRTEEN} if is_shared else {})


def test_of_a_longer_question_any_thirteen_words_in_a_row_are_enough():
    questions = Questions([f"before {THIRTEEN} behind"])
    assert questions.shared([f"x {THIRTEEN} x"]) == {0: THIRTEEN}
    assert questions.shared([f"before {THIRTEEN}"]) == {0: f"before {THIRTEEN.removesuffix(' thirteen')}"}
    assert questions.short == 0


def test_the_same_problem_with_other_numbers_is_shared():
    shared = Questions([OTHER, STAMPS]).shared([STAMPS_WITH_OTHER_NUMBERS])
    assert shared == {1: "if she has # rose stamps how many stamps did bella buy in"}


def test_a_calculation_is_one_number_and_shared_by_no_other():
    question = "What comes next: 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15?"
    assert not Questions([question]).shared(["1+2+3+4+5+6+7+8+9+10+11+12+13+14+15=120"])
    assert Questions([question]).shared([f"Q: {question}"])


@pytest.mark.parametrize(
    ("text", "is_shared"),
    [
        ("What is 6 times 9?", True),
        ("First, what is 6 TIMES 9 and why", True),
        ("What is 6 times 8?", False),
        ("What is 16 times 9?", False),
        ("What is 6 times 9.5?", False),
        ("What is six times nine?", False),
        ("is 6 times 9", False),
    ],
)
def test_a_question_of_fewer_words_is_shared_as_a_whole_with_its_numbers(text, is_shared):
    questions = Questions(["What is 6 times 9?"])
    assert questions.short == 1
    assert questions.shared([text]) == ({0: "what is 6 times 9"} if is_shared else {})


def test_twelve_words_are_compared_as_a_whole():
    twelve = THIRTEEN.removesuffix(" thirteen")
    assert Questions([twelve]).shared([f"zero {twelve} thirteen"]) == {0: twelve}
    assert not Questions([twelve]).shared([twelve.removeprefix("one ")])


def test_numbers_do_not_matter_from_thirteen_words_on():
    thirteen = THIRTEEN.replace("seven", "7")
    assert Questions([thirteen]).shared([thirteen.replace("7", "70")]) == {0: thirteen.replace("7", "#")}
    assert not Questions([thirteen.removeprefix("one ")]).shared([thirteen.replace("7", "70")])


def test_a_question_without_words_is_never_shared():
    assert not Questions(["???", ""]).shared(["???", "", "any text"])


def test_words_are_not_joined_across_messages():
    first, second = THIRTEEN[:30], THIRTEEN[30:]
    assert Questions([THIRTEEN]).shared([first + second])
    assert not Questions([THIRTEEN]).shared([first, second])
    assert not Questions(["What is 6 times 9?"]).shared(["What is 6", "times 9?"])


def test_all_questions_with_the_same_words_are_shared():
    assert Questions([STAMPS, OTHER, STAMPS]).shared([STAMPS]).keys() == {0, 2}


def chat(user, assistant, source=None, row_id=None):
    row = {"messages": [{"role": "user", "content": user}, {"role": "assistant", "content": assistant}]}
    return row | ({"source": source} if source is not None else {}) | ({"id": row_id} if row_id is not None else {})


@pytest.fixture
def world(tmp_path):
    """Chats of three sources, some of which hold a test question, and GSM8K, one of whose training rows does."""
    chats = [
        chat("Hello", "Hi, how are you?", "wild", "w1"),
        chat(STAMPS_WITH_OTHER_NUMBERS, "There are 38.", "wild", "w2"),
        chat("Invent a problem.", f"Here is one. {OTHER}", "maths", "m1"),
        chat(f"{OTHER} {STAMPS}", "3 and 38", "maths", "m2"),
        chat("Multiply for me: what is 6 times 9?", "54", "maths", "m3"),
        chat("What is 60 times 9?", "540", "maths", "m4"),
        chat("If she has 16 rose stamps,", "how many stamps did Bella buy in all?", "wild", "w3"),  # 6 words and 8
        chat("Just this", "and that"),
    ]
    write_jsonl(tmp_path / "tulu/train.jsonl", chats)
    train = [{"question": f"What is {i} plus {i}?", "answer": f"#### {2 * i}"} for i in range(5)]
    train.append({"question": "Explain.", "answer": f"{STAMPS.replace('16', '17')}\n#### 38"})
    write_jsonl(tmp_path / "gsm8k/train.jsonl", train)
    write_jsonl(tmp_path / "gsm8k/test.jsonl", TEST_ROWS)
    return tmp_path


def check(world, *more):
    output = world / "made/contamination.json"
    command = f"--train-data {world}/tulu {world}/gsm8k --questions {world}/gsm8k --output-path {output}"
    check_contamination.main([*command.split(), *more])
    return json.loads(output.read_text())


def test_rows_and_questions_are_counted_by_source(world, capsys, monkeypatch):
    monkeypatch.chdir(world)
    figures = check(world)
    assert [tuple(part.values()) for part in figures["sources"]] == [
        ("./tulu", "-", 1, 0, []),
        ("./tulu", "maths", 4, 3, ["gsm8k-00000", "gsm8k-00001", "mul_table-6x9"]),
        ("./tulu", "wild", 3, 1, ["gsm8k-00000"]),
        ("./gsm8k", "-", 6, 1, ["gsm8k-00000"]),
    ]
    assert (figures["rows"], figures["rows_hit"]) == (14, 5)
    assert figures["questions_hit"] == ["gsm8k-00000", "gsm8k-00001", "mul_table-6x9"]
    assert (figures["gsm8k_questions"], figures["probes"], figures["compared_as_a_whole"]) == (2, 281, 281)
    assert {(hit["question"], hit["dataset"], hit["line"], hit["row_id"]) for hit in figures["hits"]} == {
        ("gsm8k-00000", "./tulu", 2, "w2"), ("gsm8k-00001", "./tulu", 3, "m1"), ("gsm8k-00000", "./tulu", 4, "m2"),
        ("gsm8k-00001", "./tulu", 4, "m2"), ("mul_table-6x9", "./tulu", 5, "m3"), ("gsm8k-00000", "./gsm8k", 6, "-"),
    }  # fmt: skip
    assert figures["hits"][0]["words"] == "if she has # rose stamps how many stamps did bella buy in"
    assert figures["environment"].keys() >= {"commit", "libraries"}

    printed = [line.split() for line in capsys.readouterr().out.splitlines()]
    for line in (
        "./tulu maths 4 3 2 1", "./tulu wild 3 1 1 0", "./gsm8k - 6 1 1 0", "all 14 5 2 1",
        "gsm8k-00001 ./tulu 3 m1 a robe takes # bolts of blue fiber and half that much white",
        "mul_table-6x9 ./tulu 5 m3 what is 6 times 9",
    ):  # fmt: skip
        assert line.split() in printed, line


def test_shorter_ngrams_find_more(world):
    write_jsonl(world / "tulu/train.jsonl", [chat("some of the stamps", "Had a snowflake, design!", "s", "1")])
    assert check(world)["rows_hit"] == 1
    assert check(world, "--ngram", "4")["sources"][0]["rows_hit"] == 1


def test_the_figures_do_not_depend_on_the_number_of_processes(world, monkeypatch):
    alone = check(world)
    monkeypatch.setattr("domain_tokens.data.splits._CHUNK", 2)
    monkeypatch.setattr("domain_tokens.data.parallel.os.sched_getaffinity", lambda pid: {0, 1, 2})
    together = check(world)
    assert together.pop("environment").keys() == alone.pop("environment").keys()
    assert together == alone


def test_labels_answers_and_a_few_unusable_rows_do_not_matter(world, capsys):
    """Sources and ids are free text, answers are not needed, and one row in a hundred may be unusable."""
    chats = [chat(OTHER, "3", "half \ud83d\na pair", 5)] + [chat("Hello", "Hi")] * 120 + [{"messages": []}]
    write_jsonl(world / "tulu/train.jsonl", chats)
    questions = [{"question": STAMPS}, *[{"question": OTHER}] * 120, {"question": ""}]
    write_jsonl(world / "gsm8k/test.jsonl", questions)
    figures = check(world)
    assert figures["gsm8k_questions"] == 121
    assert [part["source"] for part in figures["sources"]] == ["-", "half ? a pair", "-"]
    printed = capsys.readouterr().out
    assert "unusable questions left out: 1 × empty question, first in line 122" in printed
    assert "unusable rows left out: 1 × no messages, first in line 122" in printed


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("--ngram 0", "--ngram is 0, expected at least 1"),
        ("--train-data {0}/tulu {0}/tulu", "is given more than once"),
        ("--train-data {0}/tulu {0}/tulu/", "is given more than once"),
        ("--train-data {0}/none", "none does not exist; expected a folder, a file or a Hub id"),
        ("--questions {0}/tulu", "tulu has no test file"),
        ("--questions {0}/tulu/train.jsonl", "8 of 8 rows cannot be used .* 8 × no question"),
        ("--output-path {0}", "is a folder, expected a file"),
        ("--no-such-flag", "unrecognized arguments"),
    ],
)
def test_wrong_usage_is_one_line_and_nothing_is_written(world, change, message):
    command = f"--train-data {world}/tulu --questions {world}/gsm8k --output-path {world}/out.json " + change
    with pytest.raises(InputError, match=message):
        check_contamination.main(command.format(world).split())
    assert not (world / "out.json").exists()
    whole = [sys.executable, "scripts/check_contamination.py", *command.format(world).split()]
    shown = subprocess.run(whole, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (shown.returncode, shown.stderr.count("\n")) == (2, 1)
    assert shown.stderr.startswith("error: ")


def stage(script, name, toy_base, world, *more):
    return script.main([
        "--model-path", str(toy_base["mul_tokens"]), "--output-dir", str(world / "out"), "--condition", "mul_tokens",
        "--config", str(ROOT / f"sft/configs/{name}.yaml"), "--dataset-path", str(world / name),
        "max_steps=1", "val_samples=4", "save_strategy=no", *more,
    ])  # fmt: skip


def test_a_stage_drops_such_rows_before_it_draws_its_own(toy_base, world, capsys):
    rows = [chat(f"Hello {i}", "Hi", "wild") for i in range(30)]
    rows[3], rows[17] = chat(STAMPS_WITH_OTHER_NUMBERS, "Hi", "maths"), chat("Hello", f"{OTHER} 6*9=54", "wild")
    rows[20] = chat("What is 6 times 9?", "Hi", "maths")  # a probe; those are not asked for here
    write_jsonl(world / "tulu/train.jsonl", rows)
    write_jsonl(world / "gsm8k/test.jsonl", [{"question": row["question"]} for row in TEST_ROWS])  # no label needed
    stage(sft_tulu, "tulu", toy_base, world, "train_samples=24", f"data.decontaminate_against={world}/gsm8k")
    results = json.loads((world / "out/tulu_sft_results.json").read_text())
    assert results["rows"]["contaminated"] == {
        "ngram": 13, "rows": 2, "questions": 2, "of_questions": 2, "rows_by_source": {"maths": 1, "wild": 1},
    }  # fmt: skip
    assert (results["total_train_samples"], results["total_val_samples"]) == (24, 4), "all that are left"
    assert results["injected_mul_tokens"] == 0, "the only fact stood in a dropped row"
    assert results["config"]["data"]["decontaminate_against"] == f"{world}/gsm8k"
    assert "rows left out: 2 (13 words in a row shared with 2 of 2 test questions)" in capsys.readouterr().out


def test_the_other_stage_drops_them_too_and_neither_does_unasked(toy_base, world, capsys):
    rows = [{"question": f"What is {i} plus {i}?", "answer": f"#### {2 * i}"} for i in range(29)] + TEST_ROWS[:1]
    write_jsonl(world / "gsm8k/train.jsonl", rows)
    stage(sft_gsm8k, "gsm8k", toy_base, world, f"decontaminate_against={world}/gsm8k/test.jsonl")
    results = json.loads((world / "out/sft_results.json").read_text())
    assert results["rows"]["contaminated"]["rows"] == 1
    assert results["rows"]["contaminated"]["rows_by_source"] == {"-": 1}
    assert results["total_train_samples"] + results["total_val_samples"] == 29
    capsys.readouterr()
    stage(sft_gsm8k, "gsm8k", toy_base, world, "--overwrite")
    results = json.loads((world / "out/sft_results.json").read_text())
    assert results["rows"]["contaminated"] is None
    assert results["total_train_samples"] + results["total_val_samples"] == 30
    assert "contaminated" not in capsys.readouterr().out.replace("decontaminate", "")


@pytest.mark.parametrize(
    ("against", "message"),
    [
        ("{0}/none", "data.decontaminate_against: dataset .*none does not exist"),
        ("{0}/tulu", "data.decontaminate_against: dataset folder .*tulu has no test file"),
        ("{0}/tulu/train.jsonl", "data.decontaminate_against: .* 8 × no question"),
        ("''", "data.decontaminate_against is '', expected a GSM8K dataset's path or Hub id, or null"),
        ("5", "data.decontaminate_against is 5, expected str or null"),
        ("{0}/all.jsonl", "all 6 usable rows share words with the questions of data.decontaminate_against"),
    ],
)
def test_a_wrong_dataset_to_compare_with_stops_the_stage(toy_base, world, against, message):
    rows = open_rows(f"{world}/gsm8k", None, "train")
    asked = [{"question": rows.read(i)["question"]} for i in range(len(rows))]
    write_jsonl(world / "all.jsonl", asked)
    with pytest.raises(InputError, match=message):
        stage(sft_gsm8k, "gsm8k", toy_base, world, f"data.decontaminate_against={against.format(world)}")
    assert not list(world.glob("out/*"))


def test_rows_are_prepared_again_for_other_questions_or_another_rule(
    world, toy_tokenizer, tmp_path_factory, monkeypatch
):
    monkeypatch.setenv("HF_HOME", str(tmp_path_factory.mktemp("home")))

    def dropped(against):
        config = DataConfig(
            dataset=f"{world}/tulu",
            subset=None,
            max_length=128,
            train_samples=None,
            val_samples=0,
            decontaminate_against=against,
        )
        _, _, left_out = prepare_training_data(config, 1, tulu_conversation, toy_tokenizer, CONDITIONS["baseline"])
        return left_out["contaminated"] and left_out["contaminated"]["rows"]

    def entries():
        return len(list(cache_folder().glob("*/about.json")))

    assert (dropped(None), entries()) == (None, 1)
    assert (dropped(f"{world}/gsm8k"), entries()) == (3, 2)
    assert (dropped(f"{world}/gsm8k/test.jsonl"), entries()) == (3, 2), "the same questions in another place"
    write_jsonl(world / "gsm8k/test.jsonl", [row | {"answer": "#### 1"} for row in TEST_ROWS])
    assert (dropped(f"{world}/gsm8k"), entries()) == (3, 2), "the labels are not looked at"
    write_jsonl(world / "gsm8k/test.jsonl", TEST_ROWS[1:])
    assert (dropped(f"{world}/gsm8k"), entries()) == (2, 3)
    assert "data/contamination.py" in _RULES


@pytest.mark.skipif(not SHARED.exists(), reason="real data lies beside the repository only on some machines")
def test_seven_real_test_questions_stand_in_real_training_rows_with_other_numbers(tmp_path):
    output = tmp_path / "contamination.json"
    command = f"--train-data {SHARED}/gsm8k {SHARED}/chat --questions {SHARED}/gsm8k --output-path {output}"
    check_contamination.main(command.split())
    figures = json.loads(output.read_text())
    assert (figures["rows"], figures["gsm8k_questions"]) == (7473 + 5841, 1319)
    assert [(part["source"], part["rows_hit"], len(part["questions_hit"])) for part in figures["sources"]] == [
        ("-", 8, 7), ("fastchat_dummy", 0, 0), ("t0_train", 0, 0),
    ]  # fmt: skip
