"""Our scoring against lm-evaluation-harness: on the same reply the same verdict, but for the differences listed here.

The filters and the metric are those of the installed package, read from its own gsm8k.yaml.
"""

import re
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import pytest
from conftest import SHARED, read_jsonl
from hypothesis import given, settings
from hypothesis import strategies as st
from lm_harness import FLEXIBLE, STRICT, Scorer, needs_harness

from domain_tokens import expand, extract_answer, inject, is_correct, toy
from domain_tokens.facts import FACT_TOKENS
from domain_tokens.prompt import STOP_STRING, cut_reply
from domain_tokens.runs.config import load_config
from domain_tokens.runs.config_schema import Gsm8kEvalConfig

pytestmark = needs_harness
ROOT = Path(__file__).parents[2]


class Difference(NamedTuple):
    """Why two verdicts on a reply may differ.

    applies: told by (reply, what we read, what the harness read); examples: (reply, reference, our verdict).
    """

    why: str
    applies: Callable[[str, str | None, str], object]
    examples: list[tuple[str, str, bool]]


def number(read: str | None) -> Fraction | None:
    """What one side read, as a number."""
    try:
        return Fraction(re.sub("[,$]", "", read or "").rstrip("."))
    except (ValueError, ZeroDivisionError):
        return None


def another_spelling(reply, ours, theirs):
    return number(ours) is not None and number(ours) == number(theirs)


def stated_earlier(reply, ours, theirs):
    """Something else that the harness takes for a number follows the stated answer."""
    _, *stated = re.split(r"####|\bthe (?:final )?answer is", expand(reply), maxsplit=1, flags=re.IGNORECASE)
    return stated and len(re.findall(r"-?[$0-9.,]{2,}|[0-9]+", stated[0])) > 1


PLAIN = r"-?\$?-?(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(?:\.[0-9]+)?[.,]*"
DASHES = "-−–—‐‑‒"


def digits(theirs: str) -> str:
    return re.escape(theirs.strip("-$.,")) or "[^\\s\\S]"  # no digits match nothing


def part_of_a_number(reply, ours, theirs):
    """What the harness read goes on, or began earlier, in a way that makes another number of it."""
    between, part = "['’_:\u00a0\u2009\u202f]", digits(theirs)
    begins = rf"[0-9](?:{between}|[eE][-+]?| [0-9]{{3}} ?| (?=[0-9]{{3}})| and |\^[({{]*-?)|√|\\(?:frac|sqrt)\{{"
    goes_on = rf"{between}[0-9]| [0-9]{{3}}(?![0-9])|[eE][-+]?[0-9]| ?\^|[½²³]| and a half"
    return re.search(rf"0[xX][0-9]*?{part}|(?:{begins}){part}|(?<![0-9]){part}(?:{goes_on})", expand(reply))


def written_out_fact(reply, ours, theirs):
    """The harness read an operand of a product that counts as a number."""
    return inject(reply) != reply and re.search(rf"[*×xX]\s*{digits(theirs)}|{digits(theirs)}\s*[*×xX]", reply)


DIFFERENCES = {
    STRICT: {
        "fact": Difference(
            "A fact counts as its product, as a token, written out or both.",
            lambda reply, ours, theirs: re.search(r"####\s*\S*<(?:MUL|PLACEBO)", inject(reply)),
            [
                ("#### <MUL_6_9_54>", "54", True),
                ("#### $<MUL_6_9_54>", "54", True),
                ("#### 6*9 = 54", "54", True),
                ("#### 6*9 apples", "6", False),
                ("#### <MUL_6_9_54>6*9=54", "54", True),
                ("#### <PLACEBO>54", "54", True),
            ],
        ),
        "space": Difference(
            "The number after #### counts with any space before it, or none; the harness wants exactly one.",
            lambda reply, ours, theirs: re.search(r"####(?! \S)\s*[-−$€£.,0-9]", reply),
            [("####18", "18", True), ("####\n18", "18", True), ("####5 then #### 6", "6", False)],
        ),
        "sign": Difference(
            "Currency signs and a typographic minus belong to a number; the harness reads neither after ####.",
            lambda reply, ours, theirs: re.search(rf"####\s*-?[$€£{DASHES[1:]}]", reply),
            [
                ("#### $18", "18", True),
                ("#### -$5", "-5", True),
                ("#### −5", "-5", True),
                ("#### –5", "-5", True),
                ("#### €18", "18", True),
            ],
        ),
        "half": Difference(
            "A number is read whole or not at all; the harness reads as far as digits, dots and commas go.",
            lambda reply, ours, theirs: re.search(
                r"####\s*[^\sa-zA-Z]*"
                r"(?:[0-9](?:[ '’_:\u00a0\u2009\u202f][0-9]|[eE][-+]?[0-9]| ?\^|[½²³]| and )|½|\\frac)",
                expand(reply),
            ),
            [
                ("#### 1e3", "1", False),
                ("#### 1e3", "1000", True),
                ("#### 1 234", "1,234", True),
                ("#### 1'234", "1", False),
                ("#### 12:30", "12", False),
                ("#### 10^3", "10", False),
                ("#### 1½", "1", False),
                ("#### 2 and a half", "2", False),
                ("#### \\frac{8}{2}", "4", True),
            ],
        ),
        "spelling": Difference(
            "Numbers are compared as numbers, by the harness as texts.",
            another_spelling,
            [("#### 18.00", "18", True), ("#### 018", "18", True), ("#### .50", "0.5", True), ("#### 5..", "5", True)],
        ),
        "fraction": Difference(
            "A fraction is one number; the harness reads its numerator, or the whole part of a mixed number.",
            lambda reply, ours, theirs: re.search(r"####[^\n]*[0-9>] ?/ ?[$€£]?[0-9.<]", reply),
            [
                ("#### 3/4", "3", False),
                ("#### 3 / 4", "3", False),
                ("#### 1 1/2", "1", False),
                ("#### 10/2", "5", True),
            ],
        ),
        "punctuation": Difference(
            "What is no number is passed over for the next ####; the harness takes bare punctuation for a number.",
            lambda reply, ours, theirs: (
                theirs != "[invalid]" and not re.fullmatch(r"-?[0-9,]*[0-9](?:\.[0-9]+)?[.,]*", theirs)
            ),
            [("#### ...\n#### 54", "54", True), ("#### 1.2.3\n#### 54", "54", True)],
        ),
    },
    FLEXIBLE: {
        "stated": Difference(
            'The number after #### or "The answer is" is the answer, whatever is said after it; the harness takes '
            "the last number.",
            stated_earlier,
            [
                ("#### 54 apples, not 5", "54", True),
                ("#### 54\nTom has 9 bags.", "54", True),
                ("The answer is 54, not 20.", "54", True),
                ("The answer is 54, not 20.", "20", False),
                ("#### 54 or so...", "54", True),
            ],
        ),
        "spelling": Difference(
            "Numbers are compared as numbers, by the harness as texts (its issue 3214).",
            another_spelling,
            [("It costs $29.00", "29", True), ("That makes 018", "18", True), ("It is .50", "0.5", True)],
        ),
        "punctuation": Difference(
            "A number has a digit; the harness takes bare punctuation for one.",
            lambda reply, ours, theirs: theirs != "[invalid]" and not re.search("[0-9]", theirs),
            [("54, etc...", "54", True), ("It is 54 ...", "54", True), ("54 $$", "54", True)],
        ),
        "fraction": Difference(
            "A fraction is one number; the harness reads its denominator.",
            lambda reply, ours, theirs: (
                "/" in (ours or "") or re.search(rf"/ ?{digits(theirs)}|{digits(theirs)} ?/", reply)
            ),
            [
                ("He ate 3/4", "4", False),
                ("He ate 3 / 4", "4", False),
                ("He ate 10/2", "5", True),
                ("It takes 1 1/2", "2", False),
                ("On 12/05/2024", "2024", False),
            ],
        ),
        "half": Difference(
            "A number is read whole or not at all; the harness reads the digits after the last other character.",
            part_of_a_number,
            [
                ("It is 1e3", "3", False),
                ("It is 1e3", "1000", True),
                ("It is 1 234", "1,234", True),
                ("It is 1’234", "234", False),
                ("At 12:30", "30", False),
                ("It is 1½", "1", False),
                ("It is 10^3", "3", False),
                ("It is 2 and a half", "2", False),
                ("It is 0x54", "54", False),
            ],
        ),
        "minus": Difference(
            "A minus, typographic ones too, is a sign in front of a number, not between two.",
            lambda reply, ours, theirs: None not in (number(ours), number(theirs)) and number(ours) == -number(theirs),
            [
                ("10-5", "5", True),
                ("It fell to −5", "-5", True),
                ("It fell to –5", "-5", True),
                ("It fell to -€5", "-5", True),
            ],
        ),
        "exponent": Difference(
            "An exponent is no answer.",
            lambda reply, ours, theirs: re.search(r"\^[({]*[-−]?" + re.escape(theirs.lstrip("-")), expand(reply)),
            [("The area is 54 cm^2", "54", True), ("It is 54 cm^{-12}", "54", True)],
        ),
        "run": Difference(
            "Commas between three or more numbers, dots in a row and signs between digits make no longer number; what "
            "a comma does between two ungrouped ones cannot be told.",
            lambda reply, ours, theirs: theirs != "[invalid]" and not re.fullmatch(PLAIN, theirs),
            [
                ("They are 1,2,3", "3", True),
                ("They are 1,2,3", "123", False),
                ("It is ...54", "54", True),
                ("12,50", "1250", False),
            ],
        ),
        "fact": Difference(
            "A fact counts as its product, written out too and within a longer number; the harness reads an operand "
            "or the digits of the token's name.",
            lambda reply, ours, theirs: (
                re.search(r"[0-9.,$>]<MUL_|<MUL_\w+>[0-9.,$]", reply) or written_out_fact(reply, ours, theirs)
            ),
            [
                ("It costs $<MUL_6_9_54>.00", "54", True),
                ("They have 6*9", "54", True),
                ("They have 6 * 9 apples", "9", False),
                ("They have <MUL_6_9_54>6*9", "54", True),
            ],
        ),
    },
}


@pytest.fixture(scope="module")
def harness() -> Scorer:
    return Scorer()


def kinds(name: str, reply: str, ours: str | None, theirs: str) -> list[str]:
    return [kind for kind, difference in DIFFERENCES[name].items() if difference.applies(reply, ours, theirs)]


def disagreements(harness: Scorer, name: str, replies: list[str], references: list[str]) -> Iterator[tuple]:
    """(kinds it is explained by, reply, reference, ours, theirs) for each reply the two sides do not agree on."""
    strict = name == STRICT
    for reply, reference, theirs in zip(replies, references, harness.read(name, replies), strict=True):
        if is_correct(reply, reference, strict) != harness.is_correct(theirs, reference):
            ours = extract_answer(reply, strict)
            yield kinds(name, reply, ours, theirs), reply, reference, ours, theirs


@pytest.mark.parametrize("name", DIFFERENCES)
def test_every_listed_difference_is_one(harness, name):
    for kind, difference in DIFFERENCES[name].items():
        for reply, reference, expected in difference.examples:
            (theirs,) = harness.read(name, [reply])
            assert is_correct(reply, reference, name == STRICT) is expected, reply
            assert harness.is_correct(theirs, reference) is not expected, reply
            assert kind in kinds(name, reply, extract_answer(reply, name == STRICT), theirs), reply


@pytest.fixture(scope="module", params=["toy", "real"])
def answers(request) -> list[str]:
    if request.param == "toy":
        return [row["answer"] for row in toy.word_problems(1000, seed=1, drills=0.1)]
    if not SHARED.exists():
        pytest.skip("the real GSM8K lies beside the repository only on some machines")
    return [row["answer"] for split in ("train", "test") for row in read_jsonl(SHARED / f"gsm8k/{split}.jsonl")]


def final(answer: str) -> str:
    return answer.split("#### ")[1]


@pytest.mark.parametrize("write", [str, inject, lambda answer: re.sub("<<.*?>>", "", answer)])
def test_every_gsm8k_answer_is_right_on_both_sides(harness, answers, write):
    replies, references = [write(answer) for answer in answers], [final(answer) for answer in answers]
    for name in DIFFERENCES:
        assert all(is_correct(*case, name == STRICT) for case in zip(replies, references, strict=True))
        assert list(disagreements(harness, name, replies, references)) == []


# What becomes of an answer (and of another one) in a reply, and which of the differences can show then.
CHANGES = {
    "another's": (lambda answer, other: other, {}),
    "a digit more": (lambda answer, other: f"{answer}7", {}),
    "words after it": (lambda answer, other: f"{answer} apples.", {}),
    "bold": (lambda answer, other: f"{answer.replace('#### ', '**')}**", {FLEXIBLE: {"stated"}}),
    "no commas": (lambda answer, other: answer.replace(",", ""), {}),
    "the answer is": (lambda answer, other: f"{answer.replace('#### ', 'The answer is ')}.", {}),
    "the next turn": (lambda answer, other: cut_reply(f"{answer}\nUser: {other}"), {}),
    "the next problem": (lambda answer, other: f"{answer}\n{other}", {FLEXIBLE: {"stated"}}),
    "no last line": (
        lambda answer, other: inject(answer.split("####")[0]),
        {FLEXIBLE: {"spelling", "fraction", "minus", "stated", "half"}},
    ),
    "cut short": (
        lambda answer, other: answer[: len(other) % len(answer)],
        {FLEXIBLE: {"spelling", "fraction", "minus", "punctuation", "half", "fact"}},
    ),
    "dots": (lambda answer, other: f"{answer.replace('#### ', 'So ')} ...", {FLEXIBLE: {"punctuation"}}),
    "a unit": (lambda answer, other: f"{answer.replace('#### ', 'So ')} m^2", {FLEXIBLE: {"exponent"}}),
    "dollars": (lambda answer, other: answer.replace("#### ", "#### $"), {STRICT: {"sign"}}),
    "cents": (lambda answer, other: f"{answer}.00", {STRICT: {"spelling"}, FLEXIBLE: {"spelling"}}),
    "dollars and cents": (lambda answer, other: f"{answer.replace('#### ', 'So $')}.00", {FLEXIBLE: {"spelling"}}),
    "no space": (lambda answer, other: answer.replace("#### ", "####"), {STRICT: {"space"}}),
}


@pytest.mark.parametrize("change", CHANGES)
def test_changed_answers_differ_only_as_listed(harness, answers, change):
    make, expected = CHANGES[change]
    some = answers[:: len(answers) // 1000]
    replies = [make(answer, other) for answer, other in zip(some, some[1:] + some[:1], strict=True)]
    references = [final(answer) for answer in some]
    for name in DIFFERENCES:
        for explained, *case in disagreements(harness, name, replies, references):
            assert set(explained) & expected.get(name, set()), (name, explained, case)


SIGNS = ["", "", "", "$", "-", "−", "–", "-$", "$-", "€", "$ ", "0"]
ENDS = [
    "", "", "", ".", "..", ",", ".,", ".0", ".00", ",0", ".5", "%", "/2", " / 2", " 1/2", "^2", "-3", "=5", "e3",
    " 000", "'000", ":30", "½", " and a half",
]  # fmt: skip
NUMBERS = st.one_of(
    st.builds(
        "{}{}{}".format,
        st.sampled_from(SIGNS),
        st.one_of(st.integers(0, 99).map(str), st.integers(0, 99999).map("{:,}".format), st.just("18.5")),
        st.sampled_from(ENDS),
    ),
    st.sampled_from(FACT_TOKENS),
)
FORMS = [
    "#### {}", "####{}", "####  {}", "####\n{}", "### {}", "#### {} apples", "#### {}\n#### {}", "#### {}, not {}",
    "#### ...{}", "#### none\n{}", "#### {}*{} = {}", "#### {}/{}", "The answer is {}.", "The answer is {}, not {}.",
    "The answer is **{}**", "The answer is {}\n#### {}", "{} and {}", "{}-{}", "{} - {} = {}", "{}*{} = {}",
    "{}, etc...", "so {}!!", "{}{}",
]  # fmt: skip
PIECES = [*"0123456789 .,/$-−#^%=*x\n()a€", *"$-. ", "####", "#### ", "The answer is ", *FACT_TOKENS[:2]]
REPLIES = st.one_of(
    st.builds(lambda form, a, b, c: form.format(a, b, c), st.sampled_from(FORMS), NUMBERS, NUMBERS, NUMBERS),
    st.builds(lambda form, a, b, c: f"so 6 {form.format(a, b, c)}", st.sampled_from(FORMS), NUMBERS, NUMBERS, NUMBERS),
    st.lists(st.sampled_from(PIECES), max_size=12).map("".join),
)


@pytest.mark.parametrize("name", DIFFERENCES)
@given(reply=REPLIES)
@settings(max_examples=1000, deadline=None)
def test_any_reply_is_judged_alike_or_a_listed_difference(harness, name, reply):
    ours, (theirs,) = extract_answer(reply, name == STRICT), harness.read(name, [reply])
    # whatever one of them read could have been asked for, and 7
    values = {value for value in (number(ours), number(theirs)) if value is not None and value.denominator == 1}
    references = [f"{value.numerator:,}" for value in values | {Fraction(7)}]
    for explained, *case in disagreements(harness, name, [reply] * len(references), references):
        assert explained, case


def test_the_task_file_asks_as_our_evaluation_does(harness):
    ours = load_config(ROOT / "eval/configs/gsm8k.yaml", Gsm8kEvalConfig).config
    asked = harness.task.config.generation_kwargs
    assert asked == {"until": [STOP_STRING], "do_sample": False, "max_gen_toks": ours.max_new_tokens}
    assert harness.task.config.num_fewshot == 0


@given(st.lists(st.sampled_from(["User:", "\n", " ", "54", "Users", "Assistant:", "<|endoftext|>", "."])).map("".join))
def test_a_reply_ends_where_the_harness_ends_it(text):
    from lm_eval.models.utils import postprocess_generated_text

    theirs = postprocess_generated_text(f" {text}", [STOP_STRING, "<|endoftext|>"], None)
    assert cut_reply(f" {text}").strip() == theirs.strip()
