"""What one evaluation does differently from another: its questions, its prompts, and how replies are judged."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

from domain_tokens.data.readers import Rows, open_rows
from domain_tokens.evaluation.fact_usage import fact_usage
from domain_tokens.evaluation.questions import Question, gsm8k_questions, make_probes
from domain_tokens.evaluation.replies import tokenize_prompts
from domain_tokens.evaluation.scores import judge_reply, metrics, mul_table, prediction
from domain_tokens.hub.client import prepare_client
from domain_tokens.models.folder import OpenModel
from domain_tokens.prompt import question_conversation
from domain_tokens.runs.config_schema import Gsm8kEvalConfig, ProbesEvalConfig
from domain_tokens.runs.names import GSM8K_EVAL, PROBES_EVAL

Prediction = dict[str, Any]
Tell = Callable[[str], None]  # prints a line


class Task(ABC):
    """An evaluation of whole replies to whole questions. Making one opens what it needs besides the model."""

    name: str  # in names of files
    recipe: type  # what its YAML holds
    what: str  # what is asked, in words
    unit = "question"
    one_line = False  # whether a reply is a single line

    def __init__(self, config, tell: Tell):
        self.config, self.tell = config, tell

    @abstractmethod
    def questions(self, checkpoint: OpenModel) -> list[Question]:
        """Return what is asked of this model."""

    def prompts(self, checkpoint: OpenModel, questions: Sequence[Question]) -> list[list[int]]:
        """Return the ids of each question's prompt."""
        return tokenize_prompts(checkpoint, [question_conversation(each.text) for each in questions])

    def judge(self, question: Question, reply) -> Prediction:
        """Return what is saved of a question. reply: a `replies.Reply`."""
        return prediction(question, reply, judge_reply(reply.text, question.reference))

    def measure(self, checkpoint: OpenModel, rank: int, processes: int) -> dict[str, Prediction]:
        """Return what one process measures beside the replies, by question: more fields of its prediction."""
        return {}

    def figures(self, rows: list[Prediction]) -> dict[str, Any]:
        """Return what the results file says of all predictions."""
        return {"metrics": metrics(rows), "fact_usage": fact_usage(rows)}

    @staticmethod
    def summary(results: dict[str, Any]) -> str:
        """Return the results in a few lines for their reader."""
        figures = results["metrics"]
        lines = [
            f"accuracy: {figures['accuracy']:.1%} ({figures['correct']} of {figures['total']}), "
            f"{figures['accuracy_strict']:.1%} if an answer must follow ####",
            f"replies: {figures['avg_response_tokens']:.1f} tokens on average, "
            f"{figures['mul_tokens_per_response']:.2f} of them fact tokens; {figures['finished_rate']:.1%} ended with "
            "end-of-text",
        ]
        for name, share in figures.get("category_accuracies", {}).items():
            lines.append(f"  {name + ':':<15} {share['accuracy']:6.1%} ({share['correct']} of {share['total']})")
        return "\n".join([*lines, f"took {results['runtime']:.1f} seconds"])


class Probes(Task):
    """The arithmetic probes of the config."""

    name, recipe = PROBES_EVAL, ProbesEvalConfig
    what = "the arithmetic probes"

    def questions(self, checkpoint: OpenModel) -> list[Question]:
        return make_probes(self.config)

    def figures(self, rows: list[Prediction]) -> dict[str, Any]:
        return super().figures(rows) | {"mul_table": mul_table(rows)}


class Gsm8k(Task):
    """The questions of a GSM8K test split."""

    name, recipe = GSM8K_EVAL, Gsm8kEvalConfig
    what = "the questions of {dataset}"

    def __init__(self, config, tell: Tell):
        super().__init__(config, tell)
        prepare_client(say=tell)
        self.rows = open_rows(config.dataset, config.subset, "test")

    def questions(self, checkpoint: OpenModel) -> list[Question]:
        return self.usable(gsm8k_questions, checkpoint)

    def usable(self, find: Callable[[Rows, Any], tuple[list, str]], checkpoint: OpenModel) -> list:
        """Return what `find` makes of the usable rows, at most `max_samples`, and say which were left out."""
        found, left_out = find(self.rows, checkpoint.tokenizer)
        if left_out:
            self.tell(f"unusable rows left out: {left_out}")
        return found[: self.config.max_samples]
