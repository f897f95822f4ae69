"""eval/run_gsm8k_steps.py: what a step is, whether it is right, and the bits of the shared text."""

import json
import shutil
from types import SimpleNamespace

import pytest
import run_gsm8k_steps
import torch
from conftest import read_jsonl, write_jsonl
from pydantic import TypeAdapter
from tokenizers import AddedToken

from domain_tokens.answers import line_result
from domain_tokens.conditions import CONDITIONS
from domain_tokens.data.conversations import gsm8k_conversation
from domain_tokens.data.shared_text import shared_texts
from domain_tokens.evaluation.bits import token_bits
from domain_tokens.evaluation.replies import cut_to_reply, reply_to
from domain_tokens.evaluation.steps import Steps, find_steps, rendering, step_bits
from domain_tokens.facts import FACT_TOKENS, GPT2_FILLERS
from domain_tokens.models.folder import open_model
from domain_tokens.runs.errors import InputError
from domain_tokens.runs.results_schema import StepPrediction, StepResults
from domain_tokens.runs.validation import read_predictions

ROW = {"question": "How?", "answer": "6*9=54\n54-4=50\nok\n#### 50"}
SOLUTION = {
    "question": "How many?",
    "answer": "Two facts.\nFirst 6*9=<<6*9=54>>54 apples in 7 days.\nThen\n\n"
    "he eats 4, so 54-4=<<54-4=50>>50.\nDone.\n#### 50",
}


def steps_of(row, tokenizer, name="baseline"):
    (shared,) = shared_texts(tokenizer, [gsm8k_conversation(row)], CONDITIONS[name])
    return find_steps("gsm8k-00012", row, shared, tokenizer.eos_token)


@pytest.mark.parametrize(
    ("line", "result"),
    [
        ("He has 6*9=<<6*9=54>>54 in 7 days", "54"),
        ("He has <MUL_6_9_54>=<<<MUL_6_9_54>>>54 in 7 days", "54"),
        ("so <MUL_6_9_54> in all", "54"),
        ("<PLACEBO>6*9=<<<PLACEBO>6*9=54>>54.", "54"),
        ("half is 1/2=<<1/2=.5>>$0.50 and 3 more", "0.50"),
        ("first <<1+1=2>>2 and then <<2+3=5>>5.0 of 9", "5.0"),
        ("5 + 6 = 11 apples", "11"),
        ("$1,234 it is", "1234"),
        ("no number", None),
        ("", None),
    ],
)
def test_a_line_comes_to_the_number_behind_its_last_annotation_or_to_its_last_number(line, result):
    assert line_result(line) == result


@pytest.mark.parametrize("name", CONDITIONS)
@pytest.mark.parametrize("vocabulary", ["toy", "gpt2"])
def test_a_prompt_is_the_true_lines_before_a_step_in_the_tokens_of_training(name, vocabulary, request):
    tokenizer = request.getfixturevalue(f"{vocabulary}_tokenizer")
    if vocabulary == "gpt2":
        tokenizer.add_tokens([AddedToken(token, normalized=False) for token in (*GPT2_FILLERS, *FACT_TOKENS)])
    solution = steps_of(SOLUTION, tokenizer, name)
    first, second = solution.steps
    assert [step.id for step in solution.steps] == ["gsm8k-00012-1", "gsm8k-00012-2"]
    assert first.reference == "First 6*9=<<6*9=54>>54 apples in 7 days."
    assert second.reference == "he eats 4, so 54-4=<<54-4=50>>50."
    for step in solution.steps:
        assert [*step.prompt] == solution.shared.ids[: len(step.prompt)]
    assert tokenizer.decode(first.prompt) == "User: How many?\nAssistant: Two facts.\n"
    told = {"baseline": "6*9=<<6*9=54>>54", "mul_tokens": "<MUL_6_9_54>=<<<MUL_6_9_54>>>54"}.get(name)
    text = tokenizer.decode(second.prompt)
    assert text.endswith(" apples in 7 days.\nThen\n\n")
    assert told is None or told in text
    # GPT-2 has one token for two line breaks at a text's end, and two tokens in front of more text.
    alone = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert (alone == [*second.prompt]) == (vocabulary == "toy")
    # Lines without a number belong to the next step, at the end to the last one.
    text = solution.shared.text
    parts = [text[a:b] for a, b in zip(solution.borders, solution.borders[1:], strict=False)]
    assert parts[0] == " Two facts.\nFirst 6*9=<<6*9=54>>54 apples in 7 days.\n"
    assert parts[1].startswith("Then\n\nhe eats") and parts[1].endswith("\nDone.\n#### 50")
    assert solution.facts == 2


class Table(torch.nn.Module):
    """A model that gives each token the same probability everywhere."""

    def __init__(self, logits):
        super().__init__()
        self.logits, self.device = logits, torch.device("cpu")

    def get_output_embeddings(self):
        return SimpleNamespace(weight=self.logits[:, None])

    def forward(self, input_ids):
        return SimpleNamespace(logits=self.logits.expand(*input_ids.shape, -1))


# 13 bits for any token but these: a digit 4, a line break 3, the fact's token 5.
@pytest.mark.parametrize(("name", "fact_bits"), [("baseline", 4 * 4 + 2 * 13), ("mul_tokens", 5), ("annotated", 47)])
def test_the_bits_of_three_lines_are_those_computed_by_hand(name, fact_bits, toy_tokenizer):
    bits = torch.full((len(toy_tokenizer),), 13.0)
    bits[toy_tokenizer.convert_tokens_to_ids([*"0123456789"])] = 4
    bits[toy_tokenizer.convert_tokens_to_ids(["Ċ", "<MUL_6_9_54>"])] = torch.tensor([3.0, 5.0])
    rest = 1 - (0.5**bits).sum() + 0.5**13
    logits = (-bits * torch.log(torch.tensor(2.0))).index_fill(0, torch.tensor(toy_tokenizer.eos_token_id), rest.log())
    checkpoint = SimpleNamespace(model=Table(logits), tokenizer=toy_tokenizer, decoding="batched")
    solution = steps_of(ROW, toy_tokenizer, name)
    ((_, found),) = token_bits(checkpoint, [solution.shared.ids])
    first, second = step_bits(solution.shared, solution.borders, found)
    # " ", "\n" | "54" "4" "50" "50" | "-" "=" "\n" "o" "k" "\n" "####" " "
    assert first == pytest.approx(
        {"number_bits": 0, "number_bytes": 0, "word_bits": 13 + 3, "word_bytes": 2, "fact_bits": fact_bits}, rel=1e-5
    )
    assert second == pytest.approx(
        {"number_bits": 7 * 4, "number_bytes": 7, "word_bits": 6 * 13 + 2 * 3, "word_bytes": 11, "fact_bits": 0},
        rel=1e-5,
    )


def test_batched_steps_are_those_asked_one_by_one(toy_base, toy_data):
    checkpoint = open_model(str(toy_base["annotated"]), None)
    task = Steps(SimpleNamespace(dataset=str(toy_data / "gsm8k"), subset=None, max_samples=None), print)
    prompts = task.prompts(checkpoint, task.questions(checkpoint))
    texts = [solution.shared.ids for solution in task.solutions]
    batched = dict(token_bits(checkpoint, texts))
    for i, text in enumerate(texts):
        ((_, alone),) = token_bits(checkpoint, [text])
        assert batched[i].sum() == pytest.approx(alone.sum(), rel=1e-6)
    for parameter in checkpoint.model.parameters():  # small random weights give every prompt the same reply
        parameter.data *= 4 if parameter.ndim > 1 else 1
    # A frequent token becomes a line break, so that some lines end early.
    replies = dict(reply_to(checkpoint, prompts, 12, None, True))
    assert replies == {i: dict(reply_to(checkpoint, [each], 12, 1, True))[0] for i, each in enumerate(prompts)}
    assert len(set(replies.values())) > 1


@pytest.mark.parametrize(
    ("generated", "reply", "finished"),
    [
        (" 6*9=54.\nHe", "6*9=54.", True),
        ("\n\nHe has 4\n", "He has 4", True),
        ("He has 4", "He has 4", False),
        ("He has 4<|endoftext|>", "He has 4", True),
        ("\nUser: no\n", "", False),
    ],
)
def test_a_step_ends_at_the_first_line_break_behind_text(generated, reply, finished, toy_base):
    checkpoint = open_model(str(toy_base["baseline"]), None)
    ids = checkpoint.tokenizer(generated, add_special_tokens=False)["input_ids"]
    found = cut_to_reply(checkpoint, ids, one_line=True)
    assert (found.text, found.finished) == (reply, finished)


@pytest.fixture(scope="module")
def measured(toy_base, toy_data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("steps")
    model = ["--model-path", str(toy_base["mul_tokens"]), "--output-dir", str(folder)]
    run_gsm8k_steps.main([*model, "--dataset-path", str(toy_data / "gsm8k"), "max_new_tokens=8"])
    return folder


def test_results_and_predictions_are_those_of_the_contract(measured):
    results = json.loads((measured / "steps_results.json").read_text())
    rows = read_predictions(measured / "steps_predictions.jsonl", StepPrediction)
    assert list(rows[0]) == [
        "id", "question", "reference", "reply", "extracted", "correct", "tokens", "mul_tokens", "finished",
        "number_bits", "number_bytes", "word_bits", "word_bytes", "fact_bits",
    ]  # fmt: skip
    figures = results["metrics"]
    assert figures["total"] == len(rows) > 20
    assert figures["step_accuracy"] == figures["correct"] / len(rows)
    for kind in ("number", "word"):
        sums = [sum(row[f"{kind}_{unit}"] for row in rows) for unit in ("bits", "bytes")]
        assert figures[f"{kind}_bits_per_byte"] == pytest.approx(sums[0] / sums[1])
    assert results["facts"]["fact_bits"] == pytest.approx(sum(row["fact_bits"] for row in rows))
    assert "fact_bits" not in figures
    assert results["evaluation"] == "steps"
    assert results["questions"] == 20
    assert TypeAdapter(StepResults).validate_python(results) == results, "every field is described"
    assert TypeAdapter(list[StepPrediction]).validate_python(rows) == rows


def test_interrupted_steps_are_continued_to_the_same_results(measured, toy_base, toy_data, tmp_path, monkeypatch):
    def interrupted(*arguments):
        for number, reply in enumerate(reply_to(*arguments)):
            if number == 5:
                raise KeyboardInterrupt
            yield reply

    arguments = ["--model-path", str(toy_base["mul_tokens"]), "--output-dir", str(tmp_path), "max_new_tokens=8"]
    arguments += ["--dataset-path", str(toy_data / "gsm8k")]
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("domain_tokens.evaluation.run.reply_to", interrupted)
        run_gsm8k_steps.main(arguments)
    assert len(read_jsonl(tmp_path / "steps_unfinished-0.jsonl")) == 5
    run_gsm8k_steps.main([*arguments, "--resume"])
    name = "steps_predictions.jsonl"
    assert (tmp_path / name).read_bytes() == (measured / name).read_bytes()


def test_one_model_under_two_names_differs_by_nothing_on_text_without_facts(toy_base, tmp_path):
    answers = ["12+13=<<12+13=25>>25 é\nso 25-1=24\n#### 24", "There are 11 of them.\n#### 11"]
    data = write_jsonl(tmp_path / "test.jsonl", [{"question": "How many?", "answer": answer} for answer in answers])
    found = []
    for name in ("baseline", "mul_tokens", "placebo"):
        model = shutil.copytree(toy_base["baseline"], tmp_path / name)
        record = json.loads((model / "domain_tokens.json").read_text()) | {"condition": name}
        (model / "domain_tokens.json").write_text(json.dumps(record))
        arguments = ["--model-path", str(model), "--output-dir", str(tmp_path / f"of_{name}"), "max_new_tokens=6"]
        run_gsm8k_steps.main([*arguments, "--dataset-path", str(data)])
        found.append((tmp_path / f"of_{name}/steps_predictions.jsonl").read_bytes())
    assert found[0] == found[1] == found[2]


def test_an_ablation_reads_plain_text(toy_base):
    checkpoint = open_model(str(toy_base["mul_tokens"]), None)
    assert rendering(checkpoint) == CONDITIONS["mul_tokens"]
    checkpoint.lineage.append({"stage": "sft_gsm8k", "inject_mul_tokens": False})
    assert not rendering(checkpoint).injects


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"question": "x?"}, "no answer"),
        ({"question": "x?", "answer": "#### 5"}, "no answer has a line with a number before its ####"),
        ({"question": "x?", "answer": "User: 6*9=54\n#### 54"}, "no answer has a line with a number before its ####"),
        (
            {"question": "1 " * 1100, "answer": "1+1=2\n#### 2"},
            "the longest solution has 2217 tokens, but the model has 1024 positions; leave that row out",
        ),
    ],
)
def test_rows_that_have_no_steps_are_refused(row, message, toy_base, tmp_path):
    data = write_jsonl(tmp_path / "test.jsonl", [row])
    arguments = ["--model-path", str(toy_base["baseline"]), "--output-dir", str(tmp_path / "out")]
    with pytest.raises(InputError, match=message):
        run_gsm8k_steps.main([*arguments, "--dataset-path", str(data)])
    assert not list(tmp_path.glob("out/*results.json"))


def test_a_vocabulary_without_the_placebo_is_refused(toy_base, tmp_path, monkeypatch):
    monkeypatch.setattr("domain_tokens.facts.placebo_token", lambda vocabulary: None)
    data = write_jsonl(tmp_path / "test.jsonl", [ROW])
    arguments = ["--model-path", str(toy_base["placebo"]), "--output-dir", str(tmp_path / "out")]
    with pytest.raises(InputError, match="its vocabulary has no <PLACEBO>"):
        run_gsm8k_steps.main([*arguments, "--dataset-path", str(data)])
