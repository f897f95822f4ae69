"""What stands in the JSON files that commands write. `write_json` takes these, readers may rely on them.

Losses are means over trained tokens, in nats. Durations are seconds, sizes bytes, shares between 0 and 1.
"""

from typing import Any, NotRequired

from typing_extensions import TypedDict

# Rises with any change of prompt, stop rule or answer pattern: figures of different versions are not compared.
EVAL_VERSION = 2


class Environment(TypedDict):
    """Where numbers come from: in every results file."""

    commit: str | None  # null outside a git checkout
    dirty: bool | None  # whether the checkout had changes
    python: str
    libraries: dict[str, str]  # version by name
    platform: str
    device: str  # a GPU's name, or cpu


class Stage(TypedDict):
    """One step of a model's history. Which keys it has depends on the step."""

    stage: str  # prepare_base, start (of other makers), sft_tulu or sft_gsm8k
    source: NotRequired[str]  # of a start model: Hub id, path, or toy
    revision: NotRequired[str]  # commit on the Hub
    model_path: NotRequired[str]  # of a trained model: the folder it was trained from
    start_weights: NotRequired[str]  # and the sha256 of that folder's weights
    dataset: NotRequired[str]
    seed: NotRequired[int | None]
    inject_mul_tokens: NotRequired[bool]
    injected_mul_tokens: NotRequired[int]
    commit: NotRequired[str | None]
    dirty: NotRequired[bool | None]


class ModelRecord(TypedDict):
    """domain_tokens.json in a model folder."""

    condition: str
    lineage: list[Stage]  # every stage the model went through, the first one first


class PeakMemory(TypedDict):
    gpu: int | None  # tensors on the GPU; null without one
    process: int | None  # the whole process; null where unknown


class SplitCounts(TypedDict):
    kept: int  # rows
    cut: int  # of the kept: longer than max_length
    dropped: int  # rows without a trained token
    injected_mul_tokens: int
    tokens: int
    trained_tokens: int


class Rows(TypedDict):
    """What became of a dataset's rows."""

    unusable: dict[str, dict[str, int]]  # by reason: rows, first_line (counted from 1)
    contaminated: dict[str, Any] | None  # rows left out for words they share with test questions; null: not looked for
    train: SplitCounts
    val: SplitCounts | None
    digests: dict[str, str | None]  # by split, of the prepared tokens


class LossCurves(TypedDict):
    train: list[tuple[int, float]]  # step, loss
    validation: list[tuple[int, float]]


class TrainingResults(TypedDict):
    """tulu_sft_results.json or sft_results.json."""

    stage: str
    condition: str
    seed: int
    model_path: str  # the model to start from
    start_weights: str  # its sha256
    dataset: str
    train_loss: float  # mean over all optimizer steps
    eval_loss: float | None  # of the saved weights on the validation rows; null without such rows
    loss_curves: LossCurves
    train_runtime: float
    peak_memory: PeakMemory
    steps: int  # optimizer steps
    total_train_samples: int
    total_val_samples: int
    inject_mul_tokens: bool
    injected_mul_tokens: int  # over the training rows, each counted once
    injected_by_fact: dict[str, int]  # by fact token
    tokens_trained: int  # positions with loss, over all epochs
    rows: Rows
    config: dict[str, Any]  # the resolved recipe
    overridden: list[str]  # dotted keys given on the command line
    environment: Environment
    weights: NotRequired[str]  # sha256 of the saved safetensors files; the last key to be set


class Share(TypedDict):
    accuracy: float
    correct: int
    total: int


class Metrics(TypedDict):
    """Counted from the predictions."""

    accuracy: float  # by the lenient rule
    accuracy_strict: float  # by the number after ####
    correct: int
    total: int
    mul_token_count: int  # fact tokens in all replies
    mul_tokens_per_response: float
    avg_response_tokens: float
    finished_rate: float  # replies that ended with end-of-text
    overall_accuracy: NotRequired[float]  # probes: accuracy by its other name
    category_accuracies: NotRequired[dict[str, Share]]  # probes: by category


class EvaluationResults(TypedDict):
    """gsm8k_results.json or arithmetic_results.json."""

    evaluation: str  # gsm8k or arithmetic
    eval_version: int
    condition: str
    model_path: str
    weights: str  # sha256 of the model's safetensors files
    lineage: list[Stage]
    seed: int  # of the probes
    runtime: float
    peak_memory: PeakMemory
    metrics: Metrics
    fact_usage: dict[str, dict[str, int]]  # by fact token: written, in_annotations, …
    mul_table: NotRequired[list[list[bool | None]]]  # probes: 9×9, row a-1, column b-1; null: not asked
    config: dict[str, Any]
    overridden: list[str]
    environment: Environment


class Prediction(TypedDict):
    """One line of gsm8k_predictions.jsonl or arithmetic_predictions.jsonl."""

    id: str  # the same question has the same id in every run
    question: str
    reference: str  # the right number
    reply: str  # whole, fact tokens as they were written
    extracted: str | None  # the number read from the reply by the lenient rule
    extracted_strict: str | None
    correct: bool
    correct_strict: bool
    tokens: int  # of the reply
    mul_tokens: int  # of these, fact tokens
    finished: bool  # whether the reply ended with end-of-text
    category: NotRequired[str]  # of a probe


class ComparedSide(TypedDict):
    """One condition in a row of a comparison."""

    correct: int  # over all seeds
    accuracy: float
    interval: list[float]  # 95%: low, high
    by_seed: list[float]  # accuracies
    std_over_seeds: float | None  # null with one seed


class ComparisonRow(TypedDict):
    """One measure. Differences are mul_tokens minus baseline, paired by question."""

    name: str
    questions: int
    baseline: ComparedSide
    mul_tokens: ComparedSide
    difference: float
    interval: list[float]  # 95%: low, high
    only_baseline_right: int  # questions, over all seeds
    only_mul_tokens_right: int
    mcnemar_p: float
    holm_p: NotRequired[float]  # probes' categories: corrected for three tests
    cohens_h: float
    detectable_difference: float | None  # what 4 of 5 runs like this would show; null: none
    verdict: str


class Comparison(TypedDict):
    """comparison.json."""

    eval_version: int
    seed: int  # of the bootstrap
    seeds: list[int | None]  # of training
    baseline_dirs: list[str]
    mul_tokens_dirs: list[str]
    rows: list[ComparisonRow]
    token_usage: dict[str, dict[str, dict[str, float]]]  # by evaluation, condition and figure
    plots: list[str]  # file names
    environment: Environment
