"""An evaluation of steps without a model, written by hand."""

import json

import numpy as np
from conftest import write_jsonl


def write_steps(
    folder, condition, seed=0, share=0.3, extra_bits=0.0, questions=60, weights=None, source="gpt2", more=0
):
    """Write steps of `questions` questions, 1 to 4 each, into an evaluation folder.

    share: of right steps. extra_bits: a byte, on top of what the shared text takes in every group. more: bytes that
    only this evaluation counts in its first step.
    """
    shared, own = np.random.default_rng(7), np.random.default_rng([seed, *map(ord, condition)])
    rows = []
    for question in range(questions):
        hard = shared.random()
        for step in range(int(shared.integers(1, 5))):
            bytes_of = {"number": int(shared.integers(0, 4)), "word": int(shared.integers(10, 40))}
            right = bool(own.random() < share)
            row = {
                "id": f"gsm8k-{question:05}-{step + 1}", "question": f"What is {question} times 9?",
                "reference": f"{question}*9 = {9 * question}", "reply": f"{question}*9 = {9 * question + (not right)}",
                "extracted": str(9 * question + (not right)), "correct": right, "tokens": 6, "mul_tokens": 0,
                "finished": True,
            }  # fmt: skip
            for kind, count in bytes_of.items():
                row[f"{kind}_bytes"] = count + more * (not rows)
                row[f"{kind}_bits"] = max(0.0, count * (0.5 + hard + extra_bits + 0.1 * own.standard_normal()))
            rows.append(row)
    write_jsonl(folder / "steps_predictions.jsonl", rows)
    sums = {key: sum(row[key] for row in rows) for key in ("number_bits", "number_bytes", "word_bits", "word_bytes")}
    correct = sum(row["correct"] for row in rows)
    results = {
        "evaluation": "steps", "condition": condition, "eval_version": 1, "config": {"seed": 42, "max_new_tokens": 9},
        "weights": weights or f"{condition}{seed}", "runtime": 0.4,
        "metrics": {
            "step_accuracy": correct / len(rows), "correct": correct, "total": len(rows), "finished_rate": 1.0,
            "number_bits_per_byte": sums["number_bits"] / sums["number_bytes"],
            "word_bits_per_byte": sums["word_bits"] / sums["word_bytes"],
        },
        "lineage": [{"stage": "prepare_base", "source": source}, {"stage": "sft_gsm8k", "seed": seed}],
    }  # fmt: skip
    (folder / "steps_results.json").write_text(json.dumps(results))
