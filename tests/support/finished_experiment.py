"""A finished experiment without a model: results and predictions of both conditions, written by hand."""

import json

from conftest import arithmetic_probes, write_jsonl
from evaluated_steps import write_steps

from domain_tokens.evaluation.fact_usage import fact_usage
from domain_tokens.evaluation.scores import metrics

# (baseline right, mul_tokens right) of 40 questions: 10 only mul_tokens, 5 only baseline, 15 both, 10 neither
RIGHT = [(False, True)] * 10 + [(True, False)] * 5 + [(True, True)] * 15 + [(False, False)] * 10
HOSTILE = '</script><script>document.title = "obeyed"</script><img src=x onerror="document.title=1">'


def write_experiment(
    root, seed, right, with_probes=True, wrong_probes=("mul_table-6x9",), source="gpt2", dataset=None, others=(),
    with_steps=False,
):  # fmt: skip
    """The conditions' stages and evaluations of one seed; question 3's replies try to be HTML.

    right: by question, for each condition. source: of the start models. dataset: that GSM8K's questions were read from.
    others: conditions beside baseline and mul_tokens.
    """
    for side, condition in enumerate(("baseline", "mul_tokens", *others)):
        facts = condition != "baseline"
        rows = []
        for i, pair in enumerate(right):
            fact = "<MUL_6_9_54>" if facts else "6*9"
            reply = HOSTILE if i == 3 else f"{fact}=<<{fact}=54>>54\n#### {54 if pair[side] else 55}"
            rows.append(
                {
                    "id": f"gsm8k-{i:05}", "question": f"What is 6 times 9 in world {i}?", "reference": "54",
                    "reply": reply, "extracted": "54" if pair[side] else "55", "extracted_strict": None,
                    "correct": pair[side], "correct_strict": pair[side], "tokens": 5 + i + side,
                    "mul_tokens": 2 * facts, "finished": True,
                }
            )  # fmt: skip
        probes = [
            {
                "id": probe.id, "question": probe.text, "reference": probe.reference, "category": probe.category,
                "reply": probe.reference, "extracted": probe.reference, "correct": probe.id not in wrong_probes,
                "correct_strict": False, "tokens": 3, "mul_tokens": 0, "finished": True,
            }
            for probe in arithmetic_probes()
        ]  # fmt: skip
        for name, predictions in (("gsm8k", rows), ("arithmetic", probes))[: 1 + with_probes]:
            write_jsonl(root / f"eval_{condition}/{name}_predictions.jsonl", predictions)
            results = {
                "condition": condition, "eval_version": 1, "config": {"seed": 42, "dataset": dataset}, "runtime": 0.4,
                "weights": f"{condition}{seed}", "metrics": metrics(predictions),
                "fact_usage": fact_usage(predictions),
                "lineage": [{"stage": "prepare_base", "source": source}, {"stage": "sft_gsm8k", "seed": seed}],
                "environment": {"commit": "abcdef0123456789", "dirty": True, "device": "cpu",
                                "libraries": {"torch": "2.13.0", "transformers": "5.23.0"}},
            }  # fmt: skip
            (root / f"eval_{condition}/{name}_results.json").write_text(json.dumps(results))
        if with_steps:
            write_steps(root / f"eval_{condition}", condition, seed, 0.3 + 0.05 * side, 0.1 * side, source=source)
        for stage, name in (("sft_tulu", "tulu_sft_results.json"), ("sft_gsm8k", "sft_results.json")):
            bits = {key: [[50, 0.75], [100, 0.5 + seed / 4]] for key in ("number_bits", "word_bits") if with_steps}
            rate = 0.001 if (stage, condition) == ("sft_gsm8k", "mul_tokens") else 0.002
            results = {
                "seed": seed, "train_loss": 1.5, "eval_loss": 1.25, "steps": 100, "total_train_samples": 1600,
                "injected_mul_tokens": 900 * facts, "injected_by_fact": {"<MUL_6_9_54>": 900} if facts else {},
                "loss_curves": {"train": [[50, 2.0 + seed], [100, 1.0]], "validation": [[100, 1.25]]} | bits,
                "config": {"seed": seed, "data": {"subset": None}, "trainer": {"learning_rate": rate}},
                "train_runtime": 90.0, "weights": f"{condition}{seed}" if name == "sft_results.json" else "f" * 64,
                "environment": {"commit": None, "dirty": None},
            }  # fmt: skip
            folder = root / f"{stage}_{condition}"
            folder.mkdir(parents=True)
            (folder / name).write_text(json.dumps(results))
