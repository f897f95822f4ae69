"""What stands in the JSON files that commands write. `validation.py` reads and checks them.

Losses are means over trained tokens, in nats; durations are seconds, sizes bytes. Required are the keys that readers
rely on; files of earlier versions may lack the others.
"""

from typing import Annotated, Any, NotRequired, Required

from pydantic import Field
from typing_extensions import TypedDict

from domain_tokens.runs.names import STEPS_EVAL

# Rises with any change of prompt, stop rule or answer pattern: figures of different versions are not compared.
EVAL_VERSION = 4

# Larger numbers are no counts, steps or seconds, and break the arithmetic.
Count = Annotated[int, Field(ge=0, le=10**15)]
Number = Annotated[float, Field(ge=-(10**15), le=10**15, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Bits = Annotated[float, Field(ge=0, le=10**15, allow_inf_nan=False)]  # -log2 of a probability
Point = Annotated[list[Number], Field(min_length=2, max_length=2)]  # step and loss


class Environment(TypedDict, total=False):
    """Where numbers come from: in every results file."""

    commit: str | None  # null outside a git checkout
    dirty: bool | None  # whether the checkout had changes
    python: str
    libraries: dict[str, str]  # version by name
    platform: str
    device: str | None  # a GPU's name, or cpu


class Stage(TypedDict, total=False):
    """One step of a model's history."""

    stage: Required[str]  # prepare_base, start (a model of other makers), sft_tulu or sft_gsm8k
    source: str | None  # of a start model: Hub id, path, or toy
    revision: str  # of a start model: commit on the Hub
    activation: str | None  # of a start model, by transformers' name; null where its config names none
    init: str  # of a start model: how the rows of new tokens began, pieces, mean, random or pretrained
    model_path: str  # of a trained model: the folder it was trained from
    start_weights: str  # sha256 of that folder's weights
    dataset: str
    seed: Count | None
    inject_mul_tokens: bool
    injected_mul_tokens: Count
    commit: str | None
    dirty: bool | None


class ModelRecord(TypedDict):
    """domain_tokens.json of a model folder."""

    condition: str
    may_start: NotRequired[list[str]]  # of a start model: the conditions that may train from it
    lineage: list[Stage]  # every stage the model went through, the first one first


class LossCurves(TypedDict):
    train: list[Point]
    validation: list[Point]
    number_bits: NotRequired[list[Point]]  # of the validation rows' shared text, per byte
    word_bits: NotRequired[list[Point]]


class TrainingResults(TypedDict, total=False):
    """tulu_sft_results.json and sft_results.json."""

    stage: str  # sft_tulu or sft_gsm8k
    condition: str
    seed: Count | None
    model_path: str  # the model to start from
    start_weights: str  # its sha256
    start_architecture: str  # sha256 of its config
    dataset: str
    dataset_sha256: str  # of its rows; absent where they came from the Hub
    train_loss: Required[Number]  # mean over the optimizer steps
    eval_loss: Number | None  # of the saved weights on the validation rows; null without such rows
    eval_number_bits_per_byte: Number | None  # of the validation rows' shared text, see data/shared_text.py
    eval_word_bits_per_byte: Number | None
    loss_curves: LossCurves
    train_runtime: Required[Number]
    peak_memory: dict[str, Count | None]  # gpu: tensors on it; process: all of it; null where unknown
    mixed_precision: str  # no, bf16 or fp16
    packed: bool  # false: rows were padded, because the model cannot take packed ones
    steps: Required[Count]  # optimizer steps
    total_train_samples: Required[Count]
    total_val_samples: Count
    inject_mul_tokens: bool
    injected_mul_tokens: Count  # in the training rows, each counted once
    injected_by_fact: dict[str, Count]  # by fact token
    tokens_trained: Count  # positions with loss, over all epochs
    # unusable: by reason {rows, first_line}; contaminated: rows dropped for words they share with test questions;
    # train, val: {kept, cut, dropped, tokens, …}; digests: by split, of the prepared tokens.
    rows: dict[str, Any]
    config: dict[str, Any]  # the resolved recipe
    overridden: list[str]  # dotted keys given on the command line
    environment: Environment
    weights: str | None  # sha256 of the saved safetensors files


class CategoryShare(TypedDict):
    accuracy: Share
    correct: Count
    total: Count


class TokenUsage(TypedDict, total=False):
    """Counted from the tokens of all replies."""

    mul_token_count: Count  # fact tokens
    mul_tokens_per_response: Number
    avg_response_tokens: Number
    finished_rate: Share  # replies that the model ended itself


class Metrics(TokenUsage, total=False):
    """Counted from the predictions."""

    accuracy: Required[Share]  # by the lenient rule
    accuracy_strict: Share  # by the number after ####
    correct: Required[Count]
    total: Required[Count]
    mul_token_count: Required[Count]
    overall_accuracy: Share  # of the probes: accuracy by its other name
    category_accuracies: dict[str, CategoryShare]  # of the probes


class EvaluationConfig(TypedDict, total=False):
    """The resolved recipe."""

    seed: Count
    dataset: str | None
    subset: str | None
    max_samples: Count | None
    max_new_tokens: Count
    batch_size: Count | None
    dtype: str
    categories: dict[str, dict[str, Any]]  # of the probes, as in eval/configs/probes.yaml


class _Evaluation(TypedDict, total=False):
    """The fields of every evaluation's results, beside its metrics."""

    evaluation: str  # gsm8k, arithmetic or steps
    eval_version: Required[Count]
    condition: Required[str]
    model_path: str
    weights: str | None  # sha256 of the model's safetensors files
    architecture: str  # sha256 of its config
    dataset_sha256: str  # of the test rows; absent where they came from the Hub, and for probes
    lineage: list[Stage]
    seed: Count  # draws the probes; other evaluations only record it
    runtime: Number
    peak_memory: dict[str, Count | None]  # as in TrainingResults
    config: Required[EvaluationConfig]
    overridden: list[str]
    environment: Environment


class EvaluationResults(_Evaluation, total=False):
    """gsm8k_results.json and arithmetic_results.json."""

    metrics: Required[Metrics]
    fact_usage: dict[str, dict[str, Count]]  # by fact token: written, in_annotations, right_in_annotations, …
    mul_table: list[list[bool | None]]  # of the probes: 9×9, row a-1, column b-1; null: not asked


class StepMetrics(TokenUsage, total=False):
    """Counted from the steps."""

    step_accuracy: Required[Share]
    correct: Required[Count]
    total: Required[Count]  # of steps
    number_bits_per_byte: Number | None  # of the digits outside facts; null: there are none
    word_bits_per_byte: Number | None


class StepResults(_Evaluation, total=False):
    """steps_results.json."""

    metrics: Required[StepMetrics]
    questions: Count
    facts: dict[str, Number]  # facts: how many; fact_bits: of all text but the shared text
    fact_usage: dict[str, dict[str, Count]]


class _Reply(TypedDict, total=False):
    """The fields of every prediction."""

    id: Required[str]  # the same question has the same id in every run
    question: Required[str]
    reference: Required[str]
    reply: Required[str]  # whole, with fact tokens as they were written
    extracted: str | None  # the number read from the reply, by the lenient rule
    correct: Required[bool]
    tokens: Required[Count]  # of the reply
    mul_tokens: Required[Count]  # of these, fact tokens
    finished: Required[bool]  # whether the model ended it itself: with end-of-text, a step also with a line break


class Prediction(_Reply, total=False):
    """One line of gsm8k_predictions.jsonl or arithmetic_predictions.jsonl. Its reference is the right number."""

    extracted_strict: str | None
    correct_strict: Required[bool]
    category: str  # of a probe


class StepPrediction(_Reply, total=False):
    """One line of steps_predictions.jsonl: a line of a reference solution, written after the true lines before it.

    Its reference is that line, its id the question's, a hyphen and the step's number: gsm8k-00012-2.
    """

    number_bits: Required[Bits]  # of the line's shared text
    number_bytes: Required[Count]
    word_bits: Required[Bits]
    word_bytes: Required[Count]
    fact_bits: Bits  # of everything else in the line; it depends on how the condition writes facts


class CheckpointState(TypedDict):
    """What is read of a checkpoint's trainer_state.json."""

    global_step: Count
    max_steps: Count


def evaluation_schemas(evaluation: str) -> tuple[type, type]:
    """Return what an evaluation's results and each of its predictions are."""
    return (StepResults, StepPrediction) if evaluation == STEPS_EVAL else (EvaluationResults, Prediction)
