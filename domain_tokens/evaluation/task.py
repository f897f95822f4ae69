"""What one evaluation does differently from another: its questions, its prompts, and how replies are judged."""

from collections.abc import Callable, Sequence
from typing import Any

from domain_tokens.evaluation.fact_usage import fact_usage
from domain_tokens.evaluation.questions import Question
from domain_tokens.evaluation.replies import encode_prompts
from domain_tokens.evaluation.scores import metrics, mul_table, prediction
from domain_tokens.models.folder import OpenModel
from domain_tokens.prompt import question_conversation
from domain_tokens.runs.names import PROBES_EVAL

Prediction = dict[str, Any]


class Task:
    """GSM8K or the probes: whole replies to whole questions."""

    unit = "question"  # what is asked
    one_line = False  # whether a reply is a single line

    def __init__(self, name: str, find_questions: Callable[[Any], list[Question]]):
        """find_questions: returns what can be asked, given the model's tokenizer."""
        self.name, self.find_questions = name, find_questions

    def questions(self, checkpoint: OpenModel) -> list[Question]:
        return self.find_questions(checkpoint.tokenizer)

    def prompts(self, checkpoint: OpenModel, questions: Sequence[Question], max_new_tokens: int) -> list[list[int]]:
        """Return the ids of each question's prompt. Raises InputError for a prompt that is too long."""
        return encode_prompts(checkpoint, [question_conversation(each.text) for each in questions], max_new_tokens)

    def judge(self, question: Question, reply) -> Prediction:
        return prediction(question, reply)

    def measure(self, checkpoint: OpenModel, rank: int, processes: int) -> dict[str, Prediction]:
        """Return what one process measures beside the replies, by question: more fields of its prediction."""
        return {}

    def figures(self, rows: list[Prediction]) -> dict[str, Any]:
        """Return what the results file says of all predictions."""
        tables = {"mul_table": mul_table(rows)} if self.name == PROBES_EVAL else {}
        return {"metrics": metrics(rows), "fact_usage": fact_usage(rows), **tables}
