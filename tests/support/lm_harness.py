"""lm-evaluation-harness for tests: its GSM8K with its own filters and metric, asked as our task file says."""

import importlib.util
from pathlib import Path

import pytest

TASK_FILE = Path(__file__).parents[2] / "eval/harness/gsm8k_local.yaml"
STRICT, FLEXIBLE = "strict-match", "flexible-extract"  # its names for accuracy_strict and accuracy

needs_harness = pytest.mark.skipif(
    importlib.util.find_spec("lm_eval") is None,
    reason="lm-evaluation-harness is not installed: uv sync --group agreement",
)


def gsm8k_task(rows: list[dict]):
    """The task of the task file over these rows, and the manager that knows the harness' own gsm8k and no other."""
    import datasets
    import lm_eval
    from lm_eval.tasks import TaskManager
    from lm_eval.tasks._yaml_loader import load_yaml

    manager = TaskManager(include_defaults=False, include_path=str(Path(lm_eval.__file__).parent / "tasks/gsm8k"))
    group = load_yaml(TASK_FILE)
    group["task"][0]["custom_dataset"] = lambda **_: {"test": datasets.Dataset.from_list(rows)}
    return manager.load(group)["tasks"]["gsm8k"], manager


class Scorer:
    """The harness' verdicts on replies, made as its evaluator makes them."""

    def __init__(self):
        from lm_eval.api.instance import Instance

        self.task, _ = gsm8k_task([{"question": "", "answer": "#### 1"}])
        self.filters = {ensemble.name: ensemble for ensemble in self.task._filters}
        self.instance = Instance

    def read(self, name: str, replies: list[str]) -> list[str]:
        """What the filter of that name takes for each reply's answer; "[invalid]" for none."""
        instances = [self.instance("generate_until", {}, ("", {}), 0, resps=[reply]) for reply in replies]
        self.filters[name].apply(instances)
        return [instance.filtered_resps[name] for instance in instances]

    def is_correct(self, read: str, reference: str) -> bool:
        return bool(self.task.process_results({"question": "", "answer": f"#### {reference}"}, [read])["exact_match"])
