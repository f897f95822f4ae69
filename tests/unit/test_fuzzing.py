"""Whatever is written: rules on text never raise and stay linear, files are read or refused, never anything else.

A longer run with other cases every time, 100,000 of each on text, fewer with files (progress/2026-11-22-bad-input.md):
    uv run pytest tests/unit/test_fuzzing.py --hypothesis-profile=long
"""

import gzip
import json
import re
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from domain_tokens import expand, extract_answer, inject, is_correct
from domain_tokens.data.conversations import gsm8k_conversation, tulu_conversation
from domain_tokens.data.readers import open_rows
from domain_tokens.data.splits import check_rows
from domain_tokens.facts import FACT_TOKENS
from domain_tokens.runs.config import load_config
from domain_tokens.runs.config_schema import (
    ExperimentConfig,
    Gsm8kEvalConfig,
    ProbesEvalConfig,
    RegistryConfig,
    SftConfig,
)
from domain_tokens.runs.errors import InputError
from domain_tokens.runs.files import jsonl_text, read_json, read_jsonl

ROOT = Path(__file__).parents[2]
RECIPES = {
    "sft/configs/gsm8k.yaml": SftConfig,
    "eval/configs/gsm8k.yaml": Gsm8kEvalConfig,
    "eval/configs/probes.yaml": ProbesEvalConfig,
    "scripts/configs/toy.yaml": ExperimentConfig,
    "scripts/configs/models.yaml": RegistryConfig,
}

# Any Unicode, halves of surrogate pairs included, and texts thick with what the rules look at.
UNICODE = st.text(st.characters())
PIECES = [
    *"0123456789", *"*×xX=/÷+-−^%.,:;$€£!?()[]{}<>#_ \t\n\r\\'\"", "**", "<<", ">>", "####", "The answer is ", "User:",
    "Assistant:", "<|endoftext|>", "\\boxed{", "1/2", "1 1/2", "1,234", "9" * 400, "½", "²", "٣", "\u2028", "\ud83d",
    "<MUL_", "<MUL_6_9_", "_1_1>", *FACT_TOKENS[:3], "<PLACEBO>", "1*1", "2 x 1 = 2", "1e3", "–", " 000", "\\frac{",
    "\\sqrt{",
]  # fmt: skip
THICK = st.lists(st.sampled_from(PIECES), max_size=40).map("".join)
TEXT = st.one_of(UNICODE, THICK, st.lists(st.one_of(UNICODE, THICK), max_size=4).map("".join))


def cases(share: float = 1):
    """As many as the profile says, or that share where a case takes long; at least 300, as in CI."""
    examples = max(300, int(share * settings().max_examples))
    return settings(max_examples=examples, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@cases()
@given(TEXT, st.booleans())
def test_injection_takes_any_text_once(text, strict):
    once = inject(text, strict)
    assert inject(once, strict) == once
    assert len(once) <= 4 * len(text)  # "1*1" becomes "<MUL_1_1_1>"


@cases()
@given(TEXT)
@example("<MUL_<MUL_1_1_1>_1_1>")
def test_expansion_takes_any_text_once_and_leaves_no_fact(text):
    once = expand(text)
    assert expand(once) == once
    assert len(once) <= len(text)
    assert not any(token in once for token in FACT_TOKENS)
    assert expand(inject(once)).count("<MUL_") == once.count("<MUL_")


@cases(0.01)
@given(THICK, THICK, THICK, st.sampled_from([inject, expand, extract_answer]))
@example("The answer is ", "1/", "1", extract_answer)  # fractions, or divisions: more readings than time
@example("The answer is ", "(", "", extract_answer)  # markup, or the first bracket of a calculation
def test_rules_on_text_take_linear_time(first, middle, last, rule):
    def seconds(times: int) -> float:
        text = first + middle * times + last * times
        started = time.process_time()
        rule(text)
        return time.process_time() - started

    times = 20_000 // max(1, len(middle + last))
    limit = 12 * min(seconds(times) for _ in range(2)) + 0.1  # 5 times as long; 25 times would be quadratic
    # measured again if too slow: the garbage of all other tests may have been collected meanwhile
    assert seconds(5 * times) < limit or seconds(5 * times) < limit


@cases()
@given(TEXT, st.booleans())
def test_an_answer_is_the_answer_of_itself(text, strict):
    answer = extract_answer(text, strict)
    if answer is None:
        return
    assert extract_answer(answer) == answer
    assert extract_answer(f"#### {answer}", strict=True) == answer
    if re.search(r"/[0.]*\Z", answer) or len(answer) > 300:
        assert not is_correct(text, "1", strict)
    else:
        assert is_correct(text, answer, strict)


# --- files: YAML, JSON, JSON lines --------------------------------------------------------------------------------

SCRAPS = [
    "5", "-1", "0", "1e400", ".nan", "-.inf", "null", "true", "text", "''", "[]", "[1, a]", "{}", "{a: 1}",
    "2026-99-99", "2026-01-01", "1:60:60", "0x", "0o9", "0b2", "1_000", "9" * 5000, "!!int x", "!!float x",
    "!!timestamp x", "!!bool x", "!!binary x", "!!set [1]", "!!python/object:os.system x", "&a [*a]", "*a", "<<", "=",
    "? [1]", "? {a: 1}", "|", ">", "'", '"', "[", "{", "# x", "\t", "- ", "%YAML 9", "---", "...",
    "[" * 3000, "\0", "\x85", "\ud83d", "é",
]  # fmt: skip


def mutated(text: str) -> st.SearchStrategy[str]:
    """Some lines taken away, doubled, or with a scrap in place of their key, their value, or the whole."""
    scraps = st.one_of(st.sampled_from(SCRAPS), UNICODE)

    def lines(changes: list) -> str:
        result = text.splitlines()
        for place, how, scrap in changes:
            i = place % len(result)
            key, _, value = result[i].partition(":")
            before = result[i][: len(result[i]) - len(result[i].lstrip())]
            result[i : i + 1] = {
                "value": [f"{key}: {scrap}"], "key": [f"{before}{scrap}:{value}"], "line": [scrap], "none": [""],
                "twice": [result[i]] * 2, "deeper": [f"  {result[i]}"],
            }[how]  # fmt: skip
        return "\n".join(result)

    hows = st.sampled_from(["value", "value", "key", "line", "none", "twice", "deeper"])
    return st.lists(st.tuples(st.integers(0, 99), hows, scraps), max_size=3).map(lines)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("fuzzing")


def written(folder: Path, name: str, content: str | bytes) -> Path:
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode(errors="surrogatepass"))
    return folder / name


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_is_read_or_refused(folder, recipe):
    plain = (ROOT / recipe).read_text(encoding="utf-8")

    @cases(0.2)
    @given(
        st.one_of(mutated(plain), mutated(plain), TEXT, st.binary().map(lambda b: b.decode(errors="surrogateescape")))
    )
    def check(text):
        path = written(folder, "recipe.yaml", text)
        try:
            loaded = load_config(path, RECIPES[recipe])
        except InputError as error:
            assert str(path) in str(error)
            assert len(str(error)) < 20_000
            return
        again = written(folder, "again.yaml", loaded.as_yaml())
        assert load_config(again, RECIPES[recipe]).as_yaml().splitlines()[1:] == loaded.as_yaml().splitlines()[1:]

    check()


KEYS = ["seed", "data.max_length", "learning_rate", "trainer.optim", "trainer", "data", "nonsense", ""]


@cases(0.2)
@given(st.sampled_from(KEYS), st.one_of(st.sampled_from(SCRAPS), UNICODE, THICK))
@example("learning_rate", "9" * 400)  # an integer, but no float
def test_an_override_is_taken_or_refused(key, value):
    try:
        load_config(ROOT / "sft/configs/gsm8k.yaml", SftConfig, [f"{key}={value}"])
    except InputError as error:
        assert len(str(error)) < 2000


ROW = {"question": "What is 6 times 9?", "answer": "6*9=<<6*9=54>>54\n#### 54"}
CHAT = {"messages": [{"role": "user", "content": "Hi."}, {"role": "assistant", "content": "6*9 is 54."}]}
ANY_JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), UNICODE),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.sampled_from([*ROW, "messages", "role", "content"]), inner)
    ),
    max_leaves=8,
)
LINES = st.one_of(
    ANY_JSON.map(json.dumps).map(str.encode),
    st.one_of(st.just(ROW), st.just(CHAT)).map(json.dumps).map(str.encode),
    st.dictionaries(st.sampled_from(list(ROW)), st.one_of(UNICODE, THICK)).map(json.dumps).map(str.encode),
    st.sampled_from(
        [b"", b"{", b"[" * 5000, b"\xef\xbb\xbf{}", b"\xff", b"NaN", b'{"a": 1, "a": 2}', b"9" * 5000, b"\0"]
    ),
    st.binary(),
)
FILES = st.tuples(st.lists(LINES, max_size=8), st.sampled_from([b"\n", b"\r\n", b"\n\n", b"\r"])).map(
    lambda parts: parts[1].join(parts[0])
)


@pytest.mark.parametrize("convert", [gsm8k_conversation, tulu_conversation])
def test_rows_are_read_or_counted_or_refused(folder, convert, monkeypatch):
    monkeypatch.setattr("domain_tokens.data.splits.UNUSABLE_LIMIT", 1)  # so that all the others are looked at

    @cases(0.2)
    @given(FILES, st.sampled_from(["train.jsonl", "train.jsonl.gz", "whole.jsonl.gz"]))
    def check(content, name):
        path = written(folder, name, gzip.compress(content) if name == "whole.jsonl.gz" else content)
        try:
            rows = open_rows(str(path), None, "train")
            usable, unusable = check_rows(rows, convert)
        except InputError as error:
            assert str(path) in str(error)
            return
        assert len(usable) + sum(reason["rows"] for reason in unusable.values()) == len(rows)
        for i in usable:
            assert {message["role"] for message in convert(rows.read(i))} <= {"system", "user", "assistant"}

    check()


@cases(0.2)
@given(content=st.one_of(FILES, st.binary(), ANY_JSON.map(json.dumps).map(str.encode)))
def test_results_are_read_or_refused(folder, content):
    path = written(folder, "results.json", content)
    for read in (read_json, read_jsonl):
        try:
            assert isinstance(read(path), dict | list)
        except InputError as error:
            assert str(path) in str(error)


@cases(0.2)
@given(value=ANY_JSON)
def test_what_is_written_is_read_again(folder, value):
    rows = [{"value": value}] * 2
    try:
        (folder / "rows.jsonl").write_text(jsonl_text(rows), "utf-8")
    except UnicodeEncodeError:  # half of a surrogate pair, which no file may hold
        return
    assert repr(read_jsonl(folder / "rows.jsonl")) == repr(rows)
