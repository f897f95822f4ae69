"""Throwaway models and data: everything is generated here, nothing is downloaded."""

import io
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import make_toy_data
import prepare_base
import pytest

from domain_tokens.conditions import CONDITIONS

PAIR = ("baseline", "mul_tokens")  # the conditions of the quickstart and of the real experiment
SHARED = Path(__file__).parents[2] / "shared" / "data"  # real data, beside the repository on some machines only

# Started in the background of a shell, the tests' own processes would ignore Ctrl-C, which some of them are to answer;
# started by nohup, a closed terminal.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

# What the tests say of devices, precision and processes is said of CPUs, on a machine with GPUs too.
os.environ["CUDA_VISIBLE_DEVICES"] = ""

# Of two tests at a time each has one core: a second one is no help with models of this size.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["OMP_NUM_THREADS"] = "1"  # read when torch is imported, here and by the processes of the tests

# The same cases every time: whether a commit passes must not be a matter of luck.
hypothesis.settings.register_profile("fixed", derandomize=True, deadline=None)
hypothesis.settings.load_profile("fixed")
# By hand, `--hypothesis-profile=long`: others every time, for hours (see test_fuzzing.py).
hypothesis.settings.register_profile("long", derandomize=False, max_examples=100_000, deadline=None)


# Left out by `uv run pytest`: they take most of a minute each, start many processes, or wait for real seconds to pass.
SLOW_FILES = (
    "test_bad_input.py", "test_determinism.py", "test_documented_commands.py", "test_edited_results.py", "test_hub.py",
    "test_interruptions.py", "test_loopback_hub.py", "test_processes.py", "test_quickstart.py",
    "test_run_experiment.py", "test_sample_sft.py", "test_sft.py",
)  # fmt: skip


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Return the number of test processes: each makes its own models, and a single file is run in one."""
    return 0 if len(config.args) == 1 and ".py" in config.args[0] else min(2, os.cpu_count() or 1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.name in SLOW_FILES:
            item.add_marker(pytest.mark.slow)


def pytest_deselected(items: list[pytest.Item]) -> None:
    if slow := [item for item in items if item.get_closest_marker("slow")]:
        slow[0].config.stash[LEFT_OUT] = len(slow)


def pytest_sessionfinish(session: pytest.Session) -> None:
    if hasattr(session.config, "workeroutput"):  # one of the workers: the process that prints collects nothing itself
        session.config.workeroutput["left_out"] = session.config.stash.get(LEFT_OUT, 0)


def pytest_testnodedown(node) -> None:
    """Hear from a worker that has ended; each has collected the same tests, and one that was killed says nothing."""
    if left_out := getattr(node, "workeroutput", {}).get("left_out"):
        node.config.stash[LEFT_OUT] = left_out


def pytest_terminal_summary(terminalreporter, config: pytest.Config) -> None:
    if left_out := config.stash.get(LEFT_OUT, 0):
        terminalreporter.write_line(
            f"left out: {left_out} slow tests (training stages, bad input, the Hub, kills, several processes, the "
            'quickstart); `uv run pytest -m "slow or not slow"` runs everything'
        )


LEFT_OUT = pytest.StashKey[int]()


@pytest.fixture(scope="session", autouse=True)
def caches(tmp_path_factory) -> Iterator[None]:
    """Prepared rows of the tests stay out of the caches at home."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HOME", str(tmp_path_factory.mktemp("hf_home")))
        yield


@pytest.fixture(scope="session")
def toy_data(tmp_path_factory) -> Path:
    """A folder with tulu/train.jsonl and gsm8k/{train,test}.jsonl."""
    folder = tmp_path_factory.mktemp("toy_data")
    make_toy_data.main(f"--output-dir {folder} --chats 300 --problems 300 --test-problems 20".split())
    return folder


@pytest.fixture(scope="session")
def toy_base(tmp_path_factory) -> dict[str, Path]:
    """The toy start models by condition."""
    root = tmp_path_factory.mktemp("toy_base")
    for condition in CONDITIONS:
        prepare_base.main(f"--toy --condition {condition} --output-dir {root / condition}".split())
    return {condition: root / condition for condition in CONDITIONS}


@pytest.fixture(scope="session")
def toy_tokenizer(toy_base):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(toy_base["baseline"])


@pytest.fixture
def gpt2_tokenizer():
    from domain_tokens.models.sources import load_tokenizer

    folder = SHARED / "gpt2"
    if not folder.exists():
        pytest.skip("GPT-2's vocabulary lies beside the repository only on some machines")
    return load_tokenizer(str(folder))


def arithmetic_probes(seed: int = 42) -> list:
    from domain_tokens.evaluation.questions import make_probes
    from domain_tokens.runs.config import load_config
    from domain_tokens.runs.config_schema import ProbesEvalConfig

    path = Path(__file__).parents[1] / "eval/configs/probes.yaml"
    return make_probes(load_config(path, ProbesEvalConfig, flags={"seed": seed}).config)


def read_jsonl(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def write_jsonl(path: Path, rows: list) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


class Terminal(io.StringIO):
    """What a script prints to, where it asks whether there is a person in front of it."""

    def isatty(self) -> bool:
        return True
