"""From a reply to a prediction, and from the predictions of an evaluation to its metrics."""

from typing import Any

from domain_tokens.answers import extract_answer, is_correct
from domain_tokens.evaluation.questions import Question


def judge_reply(text: str, reference: str) -> dict[str, Any]:
    """Return the numbers read from a whole reply, by both rules, and whether they are the reference."""
    return {
        "extracted": extract_answer(text),
        "extracted_strict": extract_answer(text, strict=True),
        "correct": is_correct(text, reference),
        "correct_strict": is_correct(text, reference, strict=True),
    }


def prediction(question: Question, reply, judged: dict[str, Any]) -> dict[str, Any]:
    """Return what is saved of one question. reply: a `replies.Reply`."""
    row = {
        "id": question.id,
        "question": question.text,
        "reference": question.reference,
        "reply": reply.text,
        **judged,
        "tokens": reply.tokens,
        "mul_tokens": reply.mul_tokens,
        "finished": reply.finished,
    }
    return row if question.category is None else row | {"category": question.category}


def metrics(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the metrics of one evaluation, all counted from its predictions."""
    total = len(rows)
    figures = {
        "accuracy": sum(row["correct"] for row in rows) / total,
        "accuracy_strict": sum(row["correct_strict"] for row in rows) / total,
        "correct": sum(row["correct"] for row in rows),
        "total": total,
        **token_usage(rows),
    }
    by_category: dict[str, list[bool]] = {}
    for row in rows:
        if "category" in row:
            by_category.setdefault(row["category"], []).append(row["correct"])
    if by_category:
        figures["overall_accuracy"] = figures["accuracy"]
        figures["category_accuracies"] = {
            name: {"accuracy": sum(correct) / len(correct), "correct": sum(correct), "total": len(correct)}
            for name, correct in by_category.items()
        }
    return figures


def token_usage(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return how long replies are, how many facts they hold, and how many ended themselves."""
    total, mul_tokens = len(rows), sum(row["mul_tokens"] for row in rows)
    return {
        "mul_token_count": mul_tokens,
        "mul_tokens_per_response": mul_tokens / total,
        "avg_response_tokens": sum(row["tokens"] for row in rows) / total,
        "finished_rate": sum(row["finished"] for row in rows) / total,
    }


def mul_table(rows: list[dict[str, Any]]) -> list[list[bool | None]]:
    """Return 9×9 marks, row a-1, column b-1: whether a times b was answered right; None if it was not asked."""
    right = {row["id"]: row["correct"] for row in rows}
    return [[right.get(f"mul_table-{a}x{b}") for b in range(1, 10)] for a in range(1, 10)]
