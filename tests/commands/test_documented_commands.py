"""The README's commands, word for word, from two start models on the Hub to six models on another machine.

They run through a shell in a folder that has the repository's scripts and an empty outputs/, against a Hub on
127.0.0.1 with the toy start models and small datasets in the places of the real ones.
"""

import json
import os
import re
import subprocess
from pathlib import Path

import pytest
from command_server import fast_uv
from conftest import PAIR, read_jsonl
from documents import documented_commands
from huggingface_hub import ModelCard
from loopback_hub import LoopbackHub, gsm8k_dataset, tulu_dataset

from domain_tokens.hub.files import PUBLISHED_FILES

ROOT = Path(__file__).parents[2]
OWNER = "zhengpu-berkeley"
TOKEN = "hf_theOwnersSecretToken"
REPOS = {
    "hf_baseline_10b": "domain-token-gpt2-baseline-10b",
    "hf_mul_tokens_10b": "domain-token-gpt2-mul-tokens-10b",
    "sft_tulu_baseline": "domain-token-gpt2-sft-tulu-baseline",
    "sft_tulu_mul_tokens": "domain-token-gpt2-sft-tulu-mul-tokens",
    "sft_gsm8k_baseline": "domain-token-gpt2-sft-gsm8k-baseline",
    "sft_gsm8k_mul_tokens": "domain-token-gpt2-sft-gsm8k-mul-tokens",
}
START, TRAIN, ASK = (
    "scripts/load_from_hf.py --models pretrained",
    r"sft/|eval/|scripts/c|scripts/make_(word|report.py outputs$)",
    "sample/",
)


def documented(pattern: str) -> list[str]:
    """The documentation's command lines that call such a script."""
    lines = [line for line in documented_commands() if line.startswith("uv run python ")]
    return [line for line in lines if re.match(pattern, line.removeprefix("uv run python "))]


class Machine:
    """A shell in a folder of its own."""

    def __init__(self, folder: Path, uv: Path, environment: dict[str, str]):
        self.folder, self.uv, self.environment = folder, uv, environment
        for room in ("sft", "eval", "sample", "scripts"):
            (folder / room).symlink_to(ROOT / room)

    def run(self, line: str, keyboard: str = "") -> str:
        path = {"PATH": f"{self.uv.parent}{os.pathsep}{os.environ['PATH']}"}
        shown = subprocess.run(
            ["bash", "-c", line], cwd=self.folder, env=self.environment | path, input=keyboard, capture_output=True,
            text=True, check=False,
        )  # fmt: skip
        assert shown.returncode == 0, f"{line}\n{shown.stderr[-3000:]}"
        assert TOKEN not in shown.stdout + shown.stderr
        return shown.stdout


@pytest.fixture(scope="module")
def world(toy_base, toy_data, tmp_path_factory):
    """A hub, a machine on which all documented commands have run, and what they showed."""
    gsm8k = {name: read_jsonl(toy_data / f"gsm8k/{name}.jsonl") for name in ("train", "test")}
    with LoopbackHub() as hub:
        hub.add_user(TOKEN, "OWNER", organizations=[OWNER])
        for name, condition in zip(REPOS, PAIR, strict=False):
            files = {path.name: path.read_bytes() for path in toy_base[condition].iterdir()}
            hub.add_repo(f"{OWNER}/{REPOS[name]}", files)
        rows = read_jsonl(toy_data / "tulu/train.jsonl")
        hub.add_repo("allenai/tulu-3-sft-mixture", tulu_dataset(rows), kind="dataset")
        hub.add_repo("openai/gsm8k", gsm8k_dataset(gsm8k["train"], gsm8k["test"]), kind="dataset")
        outside = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
        environment = outside | hub.environment(tmp_path_factory.mktemp("huggingface"), TOKEN)
        with fast_uv(tmp_path_factory.mktemp("uv"), environment) as uv:
            machine = Machine(tmp_path_factory.mktemp("machine"), uv, environment)
            (machine.folder / "data").mkdir()
            (machine.folder / "data/gsm8k").symlink_to(toy_data / "gsm8k")
            shown = {line: machine.run(line) for line in documented(re.escape(START))}
            for pattern in (TRAIN, ASK, "scripts/upload_to_hf"):
                for line in documented(pattern):
                    shown[line] = machine.run(line, keyboard="What is 7 times 8?\n")
            yield hub, machine, shown, lambda name: Machine(tmp_path_factory.mktemp(name), uv, environment)
    assert hub.unsupported == []


def test_the_readme_has_every_command_of_the_contract():
    lines = documented("")
    for line in CONTRACT.strip().splitlines():
        assert line in lines


def test_training_and_evaluation_used_the_datasets_by_their_ids(world):
    _, machine, _, _ = world
    for condition in PAIR:
        tulu = json.loads((machine.folder / f"outputs/sft_tulu_{condition}/tulu_sft_results.json").read_text())
        gsm8k = json.loads((machine.folder / f"outputs/sft_gsm8k_{condition}/sft_results.json").read_text())
        assert (tulu["dataset"], tulu["total_train_samples"]) == ("allenai/tulu-3-sft-mixture", 240)
        assert (gsm8k["dataset"], gsm8k["total_train_samples"]) == ("openai/gsm8k", 240)
        assert (tulu["injected_mul_tokens"] > 0) == (gsm8k["injected_mul_tokens"] > 0) == (condition == "mul_tokens")
        results = json.loads((machine.folder / f"outputs/eval_{condition}/gsm8k_results.json").read_text())
        assert results["metrics"]["total"] == 20
        assert results["config"]["dataset"] == "openai/gsm8k"
    assert json.loads((machine.folder / "outputs/comparison.json").read_text())["rows"]
    report = (machine.folder / "outputs/report.html").read_text(encoding="utf-8")
    assert "GSM8K (generated data): no difference shown" in report


def test_the_check_for_contamination_used_them_by_their_ids(world):
    _, machine, shown, _ = world
    (line,) = documented("scripts/check_contamination")
    figures = json.loads((machine.folder / "outputs/contamination.json").read_text())
    assert {part["dataset"] for part in figures["sources"]} == {"allenai/tulu-3-sft-mixture", "openai/gsm8k"}
    assert (figures["rows"], figures["gsm8k_questions"], figures["probes"]) == (600, 20, 281)
    assert re.search(r"^openai/gsm8k  +-  +300  ", shown[line], re.MULTILINE)


def test_asking_printed_replies(world):
    _, _, shown, _ = world
    interactive, single, several = (shown[line] for line in documented(ASK))
    assert interactive == single, "the same question, by pipe and by flag"
    assert single.strip()
    assert re.findall(r"\[(\d) of 3, seed (\d+)\]", several) == [("1", "42"), ("2", "43"), ("3", "44")]


def test_uploads_are_byte_identical_and_their_cards_readable(world):
    hub, machine, _, _ = world
    for name in ("sft_tulu_baseline", "hf_baseline_10b", "hf_mul_tokens_10b"):
        there, here = hub.files(f"OWNER/{REPOS[name]}"), machine.folder / "outputs" / name
        assert {"model.safetensors", "tokenizer.json", "domain_tokens.json"} < there.keys()
        assert there.keys() <= {*PUBLISHED_FILES, "README.md", ".gitattributes"}
        for path in there.keys() & set(PUBLISHED_FILES):
            assert there[path] == (here / path).read_bytes(), path
        data = ModelCard(there["README.md"].decode()).data
        assert data.to_dict()["library_name"] == "transformers"
    tuned = ModelCard(hub.files(f"OWNER/{REPOS['sft_tulu_baseline']}")["README.md"].decode()).data
    assert tuned.base_model == f"OWNER/{REPOS['hf_baseline_10b']}"
    assert tuned.datasets == ["allenai/tulu-3-sft-mixture"]


def test_another_machine_lists_and_fetches_them_all(world):
    hub, machine, _, another = world
    folders = " ".join(f"outputs/{name}" for name in REPOS)
    repos = " ".join(f"{OWNER}/{repo}" for repo in REPOS.values())
    machine.run(f"uv run python scripts/upload_to_hf.py --model-path {folders} --repo-name {repos} --license mit")
    card = ModelCard(hub.files(f"{OWNER}/{REPOS['sft_gsm8k_mul_tokens']}")["README.md"].decode())
    assert [result.dataset_name for result in card.data.eval_results][:2] == ["GSM8K", "GSM8K"]
    assert card.data.base_model == f"{OWNER}/{REPOS['sft_tulu_mul_tokens']}"

    new = another("new_machine")
    by_group, list_all, fetch_all, by_name = documented("scripts/load_from_hf")
    assert list_all.endswith("--list")
    assert new.run(list_all).count(" yes ") == 6
    assert new.run(by_name).count("fetched and checked") == 2
    assert {path.name for path in (new.folder / "outputs").iterdir()} == {"hf_baseline_10b", "sft_tulu_baseline"}
    assert new.run(by_group).count("fetched and checked") == 1
    assert new.run(fetch_all).count("fetched and checked") == 3
    for name in REPOS:
        fetched = {path.name: path.read_bytes() for path in (new.folder / "outputs" / name).iterdir()}
        assert fetched.pop("README.md") == hub.files(f"{OWNER}/{REPOS[name]}")["README.md"]
        assert fetched == {path: (machine.folder / "outputs" / name / path).read_bytes() for path in fetched}
        assert fetched.keys() <= set(PUBLISHED_FILES)


CONTRACT = """
uv run python sft/sft_tulu.py  --model-path outputs/hf_baseline_10b   --output-dir outputs/sft_tulu_baseline    --condition baseline   --config sft/configs/tulu.yaml
uv run python sft/sft_gsm8k.py --model-path outputs/sft_tulu_baseline --output-dir outputs/sft_gsm8k_baseline   --condition baseline   --config sft/configs/gsm8k.yaml
uv run python sft/sft_tulu.py  --model-path outputs/hf_mul_tokens_10b --output-dir outputs/sft_tulu_mul_tokens  --condition mul_tokens --config sft/configs/tulu.yaml
uv run python sft/sft_gsm8k.py --model-path outputs/sft_tulu_mul_tokens --output-dir outputs/sft_gsm8k_mul_tokens --condition mul_tokens --inject-mul-tokens --config sft/configs/gsm8k.yaml
uv run python eval/run_gsm8k.py             --model-path outputs/sft_gsm8k_baseline --output-dir outputs/eval_baseline
uv run python eval/run_arithmetic_probes.py --model-path outputs/sft_gsm8k_baseline --output-dir outputs/eval_baseline
uv run python scripts/compare_runs.py --baseline-dir outputs/eval_baseline --mul-tokens-dir outputs/eval_mul_tokens --output-path outputs/comparison.json
uv run python sample/sample_sft.py --model-path outputs/sft_tulu_baseline --interactive
uv run python sample/sample_sft.py --model-path outputs/sft_tulu_baseline --question "What is 7 times 8?"
uv run python sample/sample_sft.py --model-path outputs/sft_tulu_baseline --question "Explain photosynthesis." --num-samples 3 --temperature 0.7
uv run python scripts/upload_to_hf.py --model-path outputs/sft_tulu_baseline --repo-name OWNER/domain-token-gpt2-sft-tulu-baseline
uv run python scripts/upload_to_hf.py --model-path outputs/hf_baseline_10b outputs/hf_mul_tokens_10b --repo-name OWNER/domain-token-gpt2-baseline-10b OWNER/domain-token-gpt2-mul-tokens-10b
uv run python scripts/load_from_hf.py --list
uv run python scripts/load_from_hf.py --all
uv run python scripts/load_from_hf.py --models hf_baseline_10b sft_tulu_baseline
uv run python scripts/load_from_hf.py --models pretrained      # groups: pretrained, sft_tulu, sft_gsm8k, baseline, mul_tokens
"""  # noqa: E501  (word for word)
