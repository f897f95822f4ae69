"""Moving models: what goes up, what comes down, and what every failure on the way looks like.

The commands run as a user gives them, against a Hub on 127.0.0.1 that the real clients talk to.
"""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
import run_arithmetic_probes
import run_gsm8k
import sft_tulu
from command_server import fast_uv
from conftest import write_jsonl
from huggingface_hub import ModelCard
from loopback_hub import Fault, LoopbackHub, clean_environment, gsm8k_dataset, tulu_dataset
from transformers import AutoModelForCausalLM

from domain_tokens.facts import FACT_TOKENS
from domain_tokens.models.folder import weights_digest

ROOT = Path(__file__).parents[2]
TOKEN, READ_ONLY = "hf_alicesSecretToken", "hf_alicesReadOnlyToken"
OWNER = "zhengpu-berkeley"
UPLOADED = {
    "README.md", "config.json", "generation_config.json", "model.safetensors", "tokenizer.json",
    "tokenizer_config.json", "chat_template.jinja", "domain_tokens.json", "tulu_sft_results.json",
    "resolved_config.yaml",
}  # fmt: skip
STRANGERS = [  # what a folder collects and nobody else may see
    "checkpoint-5/model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "training_args.bin",
    "runs/events.out.tfevents.1", ".env", "token", "notes.txt", "model.safetensors.bak", "pytorch_model.bin",
]  # fmt: skip


class Shown(NamedTuple):
    returncode: int
    stdout: str
    stderr: str

    def error(self, returncode: int) -> str:
        """The one line a failed command leaves on stderr."""
        assert self.returncode == returncode, self
        assert re.fullmatch(r"error: [^\n]+\n", self.stderr), self
        for part in self:
            assert "Traceback" not in str(part)
            assert TOKEN not in str(part)
            assert READ_ONLY not in str(part)
        return self.stderr


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A hub, the environment its clients need, and a `uv` that runs scripts in it."""
    with LoopbackHub() as hub:
        hub.add_user(TOKEN, "alice", organizations=[OWNER])
        hub.add_user(READ_ONLY, "alice", write=False, organizations=[OWNER])
        patience = {"HF_HUB_DOWNLOAD_TIMEOUT": "1"}
        environment = clean_environment() | hub.environment(tmp_path_factory.mktemp("huggingface")) | patience
        with fast_uv(tmp_path_factory.mktemp("uv"), environment) as uv:
            yield hub, environment, uv
    assert hub.unsupported == []


@pytest.fixture
def hub(server):
    hub = server[0]
    hub.repos.clear()
    hub.objects.clear()
    hub.requests.clear()
    yield hub
    hub.mend()


@pytest.fixture
def command(server, tmp_path):
    """Runs a script in tmp_path with a token in the environment. Returns what it showed."""

    def run(script, *arguments, token=TOKEN, **more):
        _, environment, uv = server
        shown = subprocess.run(
            [uv, "run", "python", ROOT / script, *map(str, arguments)],
            cwd=tmp_path, env=environment | ({"HF_TOKEN": token} if token else {}) | more, capture_output=True,
            text=True, check=False,
        )  # fmt: skip
        return Shown(shown.returncode, shown.stdout, shown.stderr)

    return run


@pytest.fixture
def upload(command):
    return lambda *arguments, **more: command("scripts/upload_to_hf.py", *arguments, **more)


@pytest.fixture
def load(command):
    return lambda *arguments, **more: command("scripts/load_from_hf.py", *arguments, **more)


@pytest.fixture(scope="module")
def trained(toy_base, toy_data, tmp_path_factory):
    """A folder with a model after one short stage, and its evaluations beside it."""
    root = tmp_path_factory.mktemp("trained")
    model, evaluation = root / "sft_tulu_mul_tokens", root / "eval_mul_tokens"
    sft_tulu.main([
        "--model-path", str(toy_base["mul_tokens"]), "--output-dir", str(model), "--condition", "mul_tokens",
        "--config", str(ROOT / "sft/configs/tulu.yaml"), "--dataset-path", str(toy_data / "tulu"),
        "max_steps=2", "val_samples=20", "save_strategy=no",
    ])  # fmt: skip
    flags = ["--model-path", str(model), "--output-dir", str(evaluation)]
    run_gsm8k.main([*flags, "--dataset-path", str(toy_data / "gsm8k"), "max_new_tokens=4"])
    run_arithmetic_probes.main([*flags, "max_new_tokens=4"])
    return model


@pytest.fixture
def model(trained, tmp_path):
    """A copy to spoil."""
    shutil.copytree(trained.parent, tmp_path / "outputs")
    return tmp_path / "outputs" / trained.name


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def publish(hub, folder, name, owner=OWNER, **more):
    """Put a model's files into a repository, as an earlier upload did."""
    files = {path: content for path, content in contents(folder).items() if "/" not in path}
    hub.add_repo(f"{owner}/domain-token-gpt2-{name}", files, **more)
    return files


class TestUpload:
    def test_what_a_user_needs_goes_up_byte_for_byte_and_nothing_else(self, hub, upload, model):
        for name in STRANGERS:
            (model / name).parent.mkdir(exist_ok=True)
            (model / name).write_text(f"secret {TOKEN}")
        shown = upload("--model-path", model, "--repo-name", "alice/m", "--commit-message", "First of all")
        assert (shown.returncode, shown.stderr) == (0, "")
        files = hub.files("alice/m")
        assert files.keys() - {".gitattributes"} == UPLOADED
        local = contents(model)
        assert {name: local[name] for name in UPLOADED - {"README.md"}} == {
            name: files[name] for name in UPLOADED - {"README.md"}
        }
        assert hub.commits("alice/m")[-1] == "First of all"
        assert not hub.is_private("alice/m")
        assert "10 of 10" in shown.stdout

    def test_given_again_only_what_changed_goes_up(self, hub, upload, model):
        upload("--model-path", model, "--repo-name", "alice/m")
        commits = hub.commits("alice/m")
        hub.requests.clear()
        shown = upload("--model-path", model, "--repo-name", "alice/m")
        assert shown.returncode == 0
        assert "unchanged" in shown.stdout
        assert hub.commits("alice/m") == commits
        assert not [asked for asked in hub.requests if asked.method == "PUT"]

        (model / "resolved_config.yaml").write_text("seed: 43\n")
        shown = upload("--model-path", model, "--repo-name", "alice/m")
        assert len(hub.commits("alice/m")) == len(commits) + 1
        assert hub.files("alice/m")["resolved_config.yaml"] == b"seed: 43\n"
        assert not [asked for asked in hub.requests if asked.method == "PUT"]
        assert re.search(r"alice/m +2 of 10 +\d\.\d kB +uploaded", shown.stdout), "the card quotes the recipe"

    def test_private_means_private(self, hub, upload, model):
        upload("--model-path", model, "--repo-name", "alice/m", "--private")
        assert hub.is_private("alice/m")
        hub.add_repo("alice/public", {"note.txt": b"mine"})
        message = upload("--model-path", model, "--repo-name", "alice/public", "--private").error(1)
        assert "alice/public exists and is public, so nothing was uploaded" in message
        assert hub.files("alice/public") == {"note.txt": b"mine"}

    def test_several_models_are_each_tried_and_summed_up(self, hub, upload, model, toy_base):
        folders = [toy_base["baseline"], model]
        shown = upload("--model-path", *folders, "--repo-name", "somebody/else", "alice/m")
        message = shown.error(1)
        assert "uploading to somebody/else: the token does not allow that" in message
        assert "alice/m" not in message
        assert hub.files("alice/m")["model.safetensors"] == (model / "model.safetensors").read_bytes()
        assert re.search(r"somebody/else .* failed\n.*alice/m .* uploaded\n", shown.stdout)

    def test_the_first_model_is_the_base_of_the_second(self, hub, upload, model, toy_base):
        upload("--model-path", toy_base["mul_tokens"], model, "--repo-name", "alice/start", "alice/tuned")
        assert ModelCard(hub.files("alice/tuned")["README.md"].decode()).data.base_model == "alice/start"
        assert ModelCard(hub.files("alice/start")["README.md"].decode()).data.base_model is None

    def test_a_dry_run_lists_sizes_without_network_or_token(self, hub, upload, model):
        shown = upload("--model-path", model, "--repo-name", "alice/m", "--dry-run", token=None)
        assert (shown.returncode, shown.stderr, hub.requests) == (0, "", [])
        assert re.search(r"model\.safetensors +4\.1 MB\n", shown.stdout)
        assert all(name in shown.stdout for name in UPLOADED)

    @pytest.mark.parametrize(
        ("spoil", "message"),
        [
            (lambda m: shutil.rmtree(m), "does not exist"),
            (lambda m: (m / "config.json").unlink(), "holds no config.json"),
            (lambda m: (m / "model.safetensors").unlink(), "holds no model.safetensors"),
            (lambda m: (m / "model.safetensors").write_bytes(b"torn"), "cannot be loaded"),
            (lambda m: (m / "tokenizer.json").unlink(), "holds no tokenizer.json"),
            (lambda m: (m / "domain_tokens.json").unlink(), "holds no domain_tokens.json"),
            (lambda m: (m / "tulu_sft_results.json").unlink(), "holds no tulu_sft_results.json"),
            (lambda m: edit_results(m, weights="0"), "is not the one"),
            (lambda m: edit_results(m, steps="many"), "steps is 'many', expected a count; run it again"),
            (lambda m: edit_results(m, loss_curves=[]), "loss_curves is [], expected"),
            (lambda m: (m / "unfinished_run.json").write_text("{}"), "holds an interrupted run"),
            (lambda m: (m / "trainer_state.json").write_text("{}"), "is a checkpoint of a running training"),
            (lambda m: drop_last_fact(m), "is split into"),
            (lambda m: (m / "chat_template.jinja").write_text("{{ 'other' }}"), "is not the prompt"),
            (lambda m: (m / "domain_tokens.json").write_text('{"condition": "neither"}'), 'has condition "neither"'),
            (lambda m: (m / "domain_tokens.json").write_text('{"condition": "baseline", "lineage": []}'), "no lineage"),
            (
                lambda m: (m / "domain_tokens.json").write_text(
                    '{"condition": "baseline", "lineage": [{"stage": "dpo"}]}'
                ),
                "ends with stage 'dpo'",
            ),
            (lambda m: (m / "tulu_sft_results.json").write_text("{}"), "train_loss is missing; run it again"),
            (
                lambda m: edit_results(m, tokens_trained=None),
                "or an evaluation beside it, lack what the model card tells",
            ),
            (lambda m: (m / "tulu_sft_results.json").write_text("[]"), "holds a list, expected an object"),
            (lambda m: (m / "resolved_config.yaml").write_bytes(b"\xff"), "UnicodeDecodeError"),
            (lambda m: spoil_evaluation(m), "gsm8k_results.json: eval_version is missing; run it again"),
        ],
    )
    def test_every_folder_is_checked_before_anything_goes_up(self, hub, upload, model, toy_base, spoil, message):
        spoil(model)
        shown = upload("--model-path", toy_base["baseline"], model, "--repo-name", "alice/a", "alice/b")
        assert message in shown.error(2)
        assert hub.requests == []

    def test_what_another_model_had_left_in_the_repository_goes_away(self, hub, upload, model):
        hub.add_repo("alice/m", {"sft_results.json": b"{}", "notes.md": b"mine", "model.safetensors": b"old"})
        upload("--model-path", model, "--repo-name", "alice/m")
        assert hub.files("alice/m").keys() - {".gitattributes"} == {*UPLOADED, "notes.md"}
        (model / "sft_results.json").write_text("{}")  # of another stage: neither uploaded nor quoted
        assert "unchanged" in upload("--model-path", model, "--repo-name", "alice/m").stdout

    def test_pairs_in_the_wrong_order_are_noticed(self, upload, model):
        name = "alice/domain-token-gpt2-sft-tulu-baseline"
        shown = upload("--model-path", model, "--repo-name", name, "--dry-run").stdout
        assert f"{name} is named as another model; {model} is sft_tulu mul_tokens" in shown

    @pytest.mark.parametrize(
        ("flags", "message"),
        [
            (["--model-path", "x", "x/", "--repo-name", "o/a", "o/b"], "is given more than once"),
            (["--model-path", "x", "y", "--repo-name", "o/a", "O/A"], "is given more than once"),
            (["--model-path", "", "--repo-name", "o/a"], "model folder '' does not exist"),
            (["--model-path", "x", "--repo-name", "o/a", "--license", "mit\nx: y"], "--license is"),
            (["--model-path", "x", "--repo-name", "o/a", "--commit-message", " "], "--commit-message is empty"),
        ],
    )
    def test_wrong_flags_are_refused(self, hub, upload, flags, message):
        assert message in upload(*flags).error(2)
        assert hub.requests == []

    def test_a_checkpoint_folder_is_refused_by_its_name(self, upload, model):
        model.rename(model.parent / "checkpoint-12")
        message = upload("--model-path", "outputs/checkpoint-12", "--repo-name", "alice/m").error(2)
        assert "is a checkpoint of a running training; give the folder of the finished model" in message


def edit_config(files, old, new):
    assert old in files["config.json"]
    files["config.json"] = files["config.json"].replace(old, new)


def edit_results(model, **values):
    """Change fields of the training results; None takes one away."""
    path = model / "tulu_sft_results.json"
    results = json.loads(path.read_text()) | values
    path.write_text(json.dumps({key: value for key, value in results.items() if value is not None}))


def spoil_evaluation(model):
    path = model.parent / "eval_mul_tokens/gsm8k_results.json"
    path.write_text(json.dumps({"weights": json.loads(path.read_text())["weights"]}))


def drop_last_fact(model):
    tokenizer = json.loads((model / "tokenizer.json").read_text())
    tokenizer["added_tokens"] = [token for token in tokenizer["added_tokens"] if token["content"] != FACT_TOKENS[-1]]
    (model / "tokenizer.json").write_text(json.dumps(tokenizer))


class TestCard:
    def test_it_says_what_was_measured(self, hub, upload, model, toy_data):
        upload("--model-path", model, "--repo-name", "alice/m", "--license", "mit")
        (model.parent / "card.md").write_bytes(hub.files("alice/m")["README.md"])
        card = ModelCard.load(model.parent / "card.md")
        assert (card.data.license, card.data.language, card.data.pipeline_tag) == ("mit", "en", "text-generation")
        assert {"domain-tokens", "mul_tokens", "sft"} <= set(card.data.tags)
        found = {(r.dataset_name, r.metric_name): (r.metric_type, r.metric_value) for r in card.data.eval_results}
        gsm8k, probes = (
            json.loads((model.parent / "eval_mul_tokens" / f"{name}_results.json").read_text())["metrics"]
            for name in ("gsm8k", "arithmetic")
        )
        ours = f"Questions in the form of GSM8K ({toy_data / 'gsm8k'})"
        assert found[ours, "accuracy"] == ("accuracy", gsm8k["accuracy"])
        assert found[ours, "accuracy, strict"] == ("accuracy", gsm8k["accuracy_strict"])
        assert found["Arithmetic probes", "accuracy"] == ("accuracy", probes["accuracy"])
        table = probes["category_accuracies"]["mul_table"]["accuracy"]
        assert found["Arithmetic probes", "accuracy, mul_table"] == ("accuracy", table)
        results = json.loads((model / "tulu_sft_results.json").read_text())
        for said in (
            "the condition **mul_tokens**",
            f"| training loss | {results['train_loss']:.4f} |",
            f"`{results['weights']}`",
            f"| `sft_tulu` | `{results['model_path']}` |",
            "max_steps: 2  # override",
            r'`"User: What is 7 times 8?\nAssistant:"`',
            "## Limits",
        ):
            assert said in card.text, said

    def test_it_tells_the_steps(self, hub, upload, model):
        gsm8k = json.loads((model.parent / "eval_mul_tokens/gsm8k_results.json").read_text())
        metrics = {"step_accuracy": 0.25, "correct": 2, "total": 8, "number_bits_per_byte": 1.23456}
        metrics["word_bits_per_byte"] = None
        steps = gsm8k | {"metrics": metrics, "config": {"dataset": "openai/gsm8k", "max_samples": 3}}
        folder = model.parent / "eval_steps"
        folder.mkdir()
        (folder / "steps_results.json").write_text(json.dumps(steps))
        upload("--model-path", model, "--repo-name", "alice/m")
        card = ModelCard(hub.files("alice/m")["README.md"].decode())
        assert "| GSM8K, step by step, the first 3 | 8 | 25.0% | 1.2346 | none |" in card.text
        (told,) = [each for each in card.data.eval_results if each.metric_name == "step accuracy"]
        assert (told.metric_value, told.dataset_type) == (0.25, "other"), "not a figure of GSM8K's own leaderboard"

    def test_it_tells_an_ablation(self, hub, upload, model):
        record = json.loads((model / "domain_tokens.json").read_text())
        for stage in record["lineage"]:
            stage |= {"inject_mul_tokens": False} if "dataset" in stage else {}
        (model / "domain_tokens.json").write_text(json.dumps(record))
        upload("--model-path", model, "--repo-name", "alice/m")
        text = hub.files("alice/m")["README.md"].decode()
        assert "This model is an ablation of the condition **mul_tokens**: it was trained with `--no-inject" in text
        assert "have these products as fact tokens" not in text

    def test_its_code_runs_as_it_stands(self, hub, upload, model):
        upload("--model-path", model, "--repo-name", "alice/m")
        (code,) = re.findall(r"```python\n(.*?)```", hub.files("alice/m")["README.md"].decode(), re.DOTALL)
        assert 'model="alice/m"' in code
        names = {}
        exec(code.replace("alice/m", str(model)), names)
        assert isinstance(names["reply"], str)

    def test_figures_of_other_weights_are_not_taken(self, hub, upload, model):
        for path in (model.parent / "eval_mul_tokens").glob("*_results.json"):
            path.write_text(json.dumps(json.loads(path.read_text()) | {"weights": "others"}))
        upload("--model-path", model, "--repo-name", "alice/m")
        card = ModelCard(hub.files("alice/m")["README.md"].decode())
        assert card.data.eval_results is None
        assert "This model has not been evaluated." in card.text

    def test_of_several_evaluations_the_largest_counts_and_links_are_followed(self, hub, upload, model, tmp_path):
        few = json.loads((model.parent / "eval_mul_tokens/gsm8k_results.json").read_text())
        few["metrics"] |= {"total": 5, "accuracy": 1.0}
        few["config"] |= {"dataset": "openai/gsm8k", "max_samples": 5}
        (model.parent / "eval_zquick").mkdir()
        (model.parent / "eval_zquick/gsm8k_results.json").write_text(json.dumps(few))
        (tmp_path / "disk").mkdir()
        model.rename(tmp_path / "disk/model")
        model.symlink_to(tmp_path / "disk/model")
        upload("--model-path", model, "--repo-name", "alice/m")
        results = ModelCard(hub.files("alice/m")["README.md"].decode()).data.eval_results
        assert results[0].metric_value != 1.0
        (model.parent / "eval_mul_tokens/gsm8k_results.json").unlink()
        upload("--model-path", model, "--repo-name", "alice/m")
        results = ModelCard(hub.files("alice/m")["README.md"].decode()).data.eval_results
        assert (results[0].dataset_name, results[0].dataset_type) == ("GSM8K, the first 5", "other")

    def test_what_comes_from_paths_and_names_is_no_markup(self, hub, upload, model):
        record = json.loads((model / "domain_tokens.json").read_text())
        record["lineage"][-1]["dataset"] = "rows`|<script>\n## Evil\n---"
        (model / "domain_tokens.json").write_text(json.dumps(record))
        (model / "resolved_config.yaml").write_text("seed: 1\n```\n## Evil\n")
        upload("--model-path", model, "--repo-name", "alice/m")
        text = ModelCard(hub.files("alice/m")["README.md"].decode()).text
        assert "| `rows" + "'" * 3 + "script' ## Evil ---` |" in text
        assert "````yaml\nseed: 1\n```\n## Evil\n````" in text

    def test_gsm8k_itself_is_called_so_and_the_datasets_are_named(self, hub, upload, model):
        path = model.parent / "eval_mul_tokens/gsm8k_results.json"
        results = json.loads(path.read_text())
        results["config"] |= {"dataset": "openai/gsm8k"}
        path.write_text(json.dumps(results))
        record = json.loads((model / "domain_tokens.json").read_text())
        record["lineage"][-1]["dataset"] = "allenai/tulu-3-sft-mixture"
        (model / "domain_tokens.json").write_text(json.dumps(record))
        upload("--model-path", model, "--repo-name", "alice/domain-token-gpt2-sft-tulu-mul-tokens")
        data = ModelCard(hub.files("alice/domain-token-gpt2-sft-tulu-mul-tokens")["README.md"].decode()).data
        assert data.datasets == ["allenai/tulu-3-sft-mixture"]
        assert data.base_model == "alice/domain-token-gpt2-mul-tokens-10b"
        gsm8k = data.eval_results[0]
        expected = ("GSM8K", "openai/gsm8k", "main", "test")
        assert (gsm8k.dataset_name, gsm8k.dataset_type, gsm8k.dataset_config, gsm8k.dataset_split) == expected


class TestDownload:
    def test_a_model_comes_down_byte_for_byte_and_checked(self, hub, load, toy_base, tmp_path):
        files = publish(hub, toy_base["baseline"], "baseline-10b")
        hub.repos["model", f"{OWNER}/domain-token-gpt2-baseline-10b"].private = True
        shown = load("--models", "hf_baseline_10b")
        assert (shown.returncode, shown.stderr) == (0, "")
        assert contents(tmp_path / "outputs/hf_baseline_10b") == files
        assert [path.name for path in (tmp_path / "outputs").iterdir()] == ["hf_baseline_10b"]
        assert "fetched and checked" in shown.stdout

        hub.requests.clear()
        shown = load("--models", "hf_baseline_10b")
        assert shown.returncode == 0
        assert re.search(r"hf_baseline_10b .* already here\n", shown.stdout)
        assert hub.requests == []

    def test_all_takes_what_is_there_and_says_what_is_not(self, hub, load, toy_base, trained, tmp_path):
        publish(hub, toy_base["baseline"], "baseline-10b")
        publish(hub, trained, "sft-tulu-mul-tokens")
        shown = load("--all", token=None)
        assert (shown.returncode, shown.stderr) == (0, "")
        assert {path.name for path in (tmp_path / "outputs").iterdir()} == {"hf_baseline_10b", "sft_tulu_mul_tokens"}
        assert shown.stdout.count("fetched and checked") == 2
        assert shown.stdout.count("not on the Hub, or private") == 4

    def test_nothing_to_take_is_an_error(self, hub, load):
        message = load("--all", "--namespace", "nobody").error(1)
        assert "nobody/domain-token-gpt2-baseline-10b" in message
        assert "uv run hf auth login" in message

    @pytest.mark.parametrize(
        ("asked", "names"),
        [
            (["pretrained"], ["baseline-10b", "mul-tokens-10b"]),
            (["baseline"], ["baseline-10b", "sft-tulu-baseline", "sft-gsm8k-baseline"]),
            (["sft_tulu", "sft_tulu_baseline"], ["sft-tulu-baseline", "sft-tulu-mul-tokens"]),
        ],
    )
    def test_groups_and_names(self, hub, load, asked, names):
        message = load("--models", *asked).error(1)
        assert re.findall(r"domain-token-gpt2-([\w-]+)", message) == names

    def test_a_name_that_is_nowhere_lists_the_known_ones(self, hub, load):
        message = load("--models", "hf_baseline").error(2)
        for name in ("hf_baseline_10b", "sft_gsm8k_mul_tokens", "pretrained", "mul_tokens"):
            assert name in message
        assert hub.requests == []

    def test_list_shows_here_there_and_size(self, hub, load, toy_base, tmp_path):
        publish(hub, toy_base["baseline"], "baseline-10b")
        shutil.copytree(toy_base["mul_tokens"], tmp_path / "outputs/hf_mul_tokens_10b")
        shown = load("--list")
        assert (shown.returncode, shown.stderr) == (0, "")
        rows = {line.split()[0]: line.split()[1:] for line in shown.stdout.splitlines() if line.startswith("outputs/")}
        repo = f"{OWNER}/domain-token-gpt2"
        assert rows["outputs/hf_baseline_10b"] == ["no", f"{repo}-baseline-10b", "yes", "4.1", "MB"]
        assert rows["outputs/hf_mul_tokens_10b"] == ["yes", f"{repo}-mul-tokens-10b", "no", "4.1", "MB"]
        assert rows["outputs/sft_gsm8k_baseline"] == ["no", f"{repo}-sft-gsm8k-baseline", "no"]
        assert len(rows) == 6

    def test_list_without_the_hub_still_shows_what_is_here(self, hub, load, toy_base, tmp_path):
        shutil.copytree(toy_base["mul_tokens"], tmp_path / "outputs/hf_mul_tokens_10b")
        hub.fail(Fault(status=503))
        shown = load("--list")
        assert "the Hub has a problem (503 Service Unavailable)" in shown.error(1)
        assert re.search(r"outputs/hf_mul_tokens_10b +yes .* unknown +4\.\d MB", shown.stdout)

    def test_another_registry_owner_and_root(self, hub, load, toy_base, tmp_path):
        registry = "owner: nobody\nmodels: {tiny: {repo: small, stage: pretrained, condition: baseline}}\n"
        (tmp_path / "models.yaml").write_text(registry)
        hub.add_repo("alice/small", contents(toy_base["baseline"]))
        flags = ["--registry", "models.yaml", "--namespace", "alice", "--output-root", "deep/models"]
        assert load("--all", *flags).returncode == 0
        assert (tmp_path / "deep/models/tiny/model.safetensors").exists()

    def test_force_replaces_and_revision_chooses(self, hub, load, toy_base, tmp_path):
        repo_id, folder = f"{OWNER}/domain-token-gpt2-baseline-10b", tmp_path / "outputs/hf_baseline_10b"
        files = publish(hub, toy_base["baseline"], "baseline-10b")
        hub.add_revision(repo_id, "v1")
        newer = files | {"domain_tokens.json": files["domain_tokens.json"] + b"\n"}
        hub.repos["model", repo_id].commit("newer", {
            name: hub.repos["model", repo_id].commits[0].files[name] for name in files if name != "domain_tokens.json"
        })  # fmt: skip
        assert load("--models", "hf_baseline_10b").returncode == 0
        assert json.loads((folder / "domain_tokens.json").read_text())["lineage"][0]["source"] == repo_id
        (folder / "mine.txt").write_text("gone with --force")
        assert load("--models", "hf_baseline_10b", "--force", "--revision", "v1").returncode == 0
        assert contents(folder) == files != newer
        assert [path.name for path in (tmp_path / "outputs").iterdir()] == ["hf_baseline_10b"]
        message = load("--models", "hf_baseline_10b", "--force", "--revision", "v9").error(1)
        assert "not on the Hub at v9; check the owner and the revision" in message
        assert contents(folder) == files

    def test_a_model_that_does_not_say_its_condition_gets_the_registrys(self, hub, load, toy_base, tmp_path):
        files = contents(toy_base["mul_tokens"])
        del files["domain_tokens.json"]
        hub.add_repo(f"{OWNER}/domain-token-gpt2-mul-tokens-10b", files)
        assert load("--models", "hf_mul_tokens_10b").returncode == 0
        record = json.loads((tmp_path / "outputs/hf_mul_tokens_10b/domain_tokens.json").read_text())
        assert record["condition"] == "mul_tokens"
        assert record["lineage"] == [{
            "stage": "start", "source": f"{OWNER}/domain-token-gpt2-mul-tokens-10b",
            "revision": hub.repos["model", f"{OWNER}/domain-token-gpt2-mul-tokens-10b"].commits[0].sha,
        }]  # fmt: skip

    def test_only_model_files_come_down_and_checkpoints_when_asked_for(self, hub, load, toy_base, tmp_path):
        files = contents(toy_base["baseline"])
        extra = {
            "checkpoint-5/config.json": b"{}", "checkpoint-5/optimizer.pt": b"state", "training_args.bin": b"pickle",
            "pytorch_model.bin": b"pickle", "runs/events": b"", "checkpoint-5/../../evil.json": b"", "../evil.txt": b"",
        }  # fmt: skip
        hub.add_repo(f"{OWNER}/domain-token-gpt2-baseline-10b", files | extra)
        folder = tmp_path / "outputs/hf_baseline_10b"
        assert load("--models", "hf_baseline_10b").returncode == 0
        assert contents(folder) == files
        assert load("--models", "hf_baseline_10b", "--include-checkpoints", "--force").returncode == 0
        kept = {name: extra[name] for name in ("checkpoint-5/config.json", "checkpoint-5/optimizer.pt")}
        assert contents(folder) == files | kept
        assert not list(tmp_path.rglob("evil*"))

    @pytest.mark.parametrize(
        ("spoil", "message"),
        [
            (lambda files: files.pop("config.json"), "holds no config.json"),
            (lambda files: files.update({"model.bin": files.pop("model.safetensors")}), "holds no model.safetensors"),
            (lambda files: files.pop("tokenizer.json"), "tokenizer"),
            (lambda files: files.update({"model.safetensors": b"torn"}), "cannot be loaded"),
            (lambda files: files.update({"domain_tokens.json": b'{"condition": "baseline"}'}), "no lineage"),
            (lambda files: edit_config(files, b'"n_head": 4', b'"n_head": 0'), "cannot be loaded (ZeroDivisionError"),
            (lambda files: edit_config(files, b'"n_layer": 4', b'"n_layer": 5'), "lacks weights"),
        ],
    )  # fmt: skip
    def test_a_model_that_cannot_be_used_is_not_kept(self, hub, load, toy_base, tmp_path, spoil, message):
        files = contents(toy_base["baseline"])
        spoil(files)
        hub.add_repo(f"{OWNER}/domain-token-gpt2-baseline-10b", files)
        shown = load("--models", "hf_baseline_10b").error(1)
        assert message in shown
        assert ".downloading" not in shown
        assert not list((tmp_path / "outputs").glob("*")) if (tmp_path / "outputs").exists() else True

    def test_a_model_of_the_other_condition_is_named_as_such(self, hub, load, toy_base):
        publish(hub, toy_base["mul_tokens"], "baseline-10b")
        assert "fetched and checked; it says it is a mul_tokens model" in load("--models", "hf_baseline_10b").stdout

    @pytest.mark.parametrize("kind", ["link", "broken link", "file", "killed"])
    def test_force_replaces_whatever_is_in_the_way(self, hub, load, toy_base, tmp_path, kind):
        files = publish(hub, toy_base["baseline"], "baseline-10b")
        root = tmp_path / "outputs"
        root.mkdir()
        if kind == "file":
            (root / "hf_baseline_10b").write_text("a file")
        elif kind == "killed":  # in the middle of a download, and of the exchange of an earlier one
            for name in (".hf_baseline_10b.replaced/config.json", ".hf_baseline_10b.downloading/old.json.1f.part"):
                (root / name).parent.mkdir()
                (root / name).write_text("left over")
        else:
            (root / "hf_baseline_10b").symlink_to(toy_base["baseline"] if kind == "link" else tmp_path / "nowhere")
        shown = load("--models", "hf_baseline_10b", "--force")
        assert (shown.returncode, shown.stderr) == (0, "")
        assert contents(root / "hf_baseline_10b") == files == contents(toy_base["baseline"])
        assert [path.name for path in root.iterdir()] == ["hf_baseline_10b"]

    def test_the_home_folder_can_be_written_with_a_tilde(self, hub, load, toy_base, tmp_path):
        publish(hub, toy_base["baseline"], "baseline-10b")
        flags = ["--models", "hf_baseline_10b", "--output-root", "~/models"]
        assert load(*flags, HOME=str(tmp_path / "me")).returncode == 0
        assert (tmp_path / "me/models/hf_baseline_10b/config.json").exists()

    def test_a_folder_with_something_else_is_not_touched(self, hub, load, toy_base, tmp_path):
        publish(hub, toy_base["baseline"], "baseline-10b")
        folder = tmp_path / "outputs/hf_baseline_10b"
        folder.mkdir(parents=True)
        (folder / "mine.txt").write_text("keep")
        assert "holds no finished model; --force replaces it" in load("--models", "hf_baseline_10b").error(1)
        assert contents(folder) == {"mine.txt": b"keep"}


REMEDY = "uv run hf auth login"


class TestCredentials:
    def test_uploading_without_a_token_says_how_to_get_one(self, hub, upload, model):
        message = upload("--model-path", model, "--repo-name", "alice/m", token=None).error(1)
        assert "there is none" in message
        assert REMEDY in message
        assert hub.requests == []

    @pytest.mark.parametrize("token", ["hf_unknown", "hf_line\nbreak", "hf_é", "hf_a b"])
    def test_a_refused_token_says_so_without_showing_it(self, hub, upload, load, model, token):
        for shown in (
            upload("--model-path", model, "--repo-name", "alice/m", token=token),
            load("--all", token=token),
            load("--list", token=token),
        ):
            message = shown.error(1)
            assert REMEDY in message
            assert "token" in message
            assert token not in message + shown.stdout

    def test_an_odd_token_stops_nothing_that_needs_no_hub(self, command, toy_base, toy_data):
        assert train(command, toy_base, toy_data / "tulu", token="hf_a b").returncode == 0

    def test_a_token_without_the_right_to_write(self, hub, upload, model):
        message = upload("--model-path", model, "--repo-name", "alice/m", token=READ_ONLY).error(1)
        assert "the token does not allow that" in message
        assert REMEDY in message

    def test_a_hub_that_repeats_the_token_is_not_quoted(self, hub, upload, load, model):
        hub.fail(Fault(status=403, message=f"the token {TOKEN} is no good"))
        assert "the token <token> is no good" in upload("--model-path", model, "--repo-name", "alice/m").error(1)
        load("--all").error(1)
        hub.mend()
        hub.fail(Fault(status=400, message=f"bad {TOKEN}"))
        assert "bad <token>" in load("--list").error(1)

    def test_the_token_is_nowhere_in_what_is_written(self, hub, upload, load, model, tmp_path):
        shown = upload("--model-path", model, "--repo-name", f"{OWNER}/domain-token-gpt2-sft-tulu-mul-tokens")
        shutil.rmtree(tmp_path / "outputs")
        shown += load("--models", "sft_tulu_mul_tokens")
        assert TOKEN not in "".join(map(str, shown))
        for name, content in contents(tmp_path).items():
            assert TOKEN.encode() not in content, name

    def test_a_private_dataset_names_the_remedy(self, hub, command, toy_base):
        hub.add_repo("bob/rows", tulu_dataset([{"messages": []}]), kind="dataset", private=True)
        message = train(command, toy_base, "bob/rows").error(2)
        assert "dataset bob/rows is neither here nor on the Hub, or private" in message
        assert REMEDY in message
        message = train(command, toy_base, "bob/rows", token="hf_unknown").error(1)
        assert "the Hub refuses the token" in message


def train(command, toy_base, dataset, *more, **token):
    return command(
        "sft/sft_tulu.py", "--model-path", toy_base["baseline"], "--output-dir", "out", "--condition", "baseline",
        "--config", ROOT / "sft/configs/tulu.yaml", "--dataset-path", dataset, "max_steps=1", "save_strategy=no",
        "eval_strategy=no", *more, **token,
    )  # fmt: skip


# (fault, does the command end well by itself)
UPLOAD_FAULTS = {
    **{f"{status} everywhere": (Fault(status=status), False) for status in (401, 403, 404, 429, 500, 503)},
    **{
        f"{status} at {name}": (Fault(path, status=status), False)
        for status in (401, 403, 404, 500, 503)
        for name, path in {"create": "/repos/create", "preupload": "/preupload/", "commit": "/commit/"}.items()
    },
    "429 once at preupload": (Fault("/preupload/", status=429, times=1, headers={"Retry-After": "1"}), True),
    "429 once at the upload": (Fault("PUT /lfs/", status=429, times=1, headers={"Retry-After": "1"}), True),
    "429 at the commit": (Fault("/commit/", status=429, headers={"Retry-After": "1"}), False),
    "500 once at the batch": (Fault("objects/batch", status=500, times=1), True),
    "503 twice at the upload": (Fault("PUT /lfs/", status=503, times=2), True),
    "503 for ever at the upload": (Fault("PUT /lfs/", status=503), False),
    "cut once in the upload": (Fault("PUT /lfs/", cut_after=100_000, times=1), True),
    "cut always in the upload": (Fault("PUT /lfs/", cut_after=100_000), False),
    "the commit's answer is lost": (Fault("/commit/", cut_after=10**9, times=1), True),
    "503 once at create": (Fault("/repos/create", status=503, times=1), True),
    "429 once at the commit": (Fault("/commit/", status=429, times=1, headers={"Retry-After": "1"}), True),
    "slow answers": (Fault(delay=0.05), True),
}
DOWNLOAD_FAULTS = {
    **{f"{status} everywhere": (Fault(status=status), False) for status in (401, 403, 404, 429, 500, 503)},
    **{
        f"{status} at {name}": (Fault(path, status=status), False)
        for status in (401, 403, 404, 500, 503)
        for name, path in {
            "the tree": "/tree/", "a small file": "resolve/.*/config.json", "the weights": "GET /lfs/.*safetensors",
        }.items()
    },
    "429 once at a file": (Fault("GET .*config.json", status=429, times=1, headers={"Retry-After": "1"}), True),
    "429 once at the weights": (Fault("GET /lfs/", status=429, times=1, headers={"Retry-After": "1"}), True),
    "503 once at a file's head": (Fault("HEAD .*config.json", status=503, times=1), True),
    "500 once at a file": (Fault("GET .*config.json", status=500, times=1), True),
    "503 twice at the weights": (Fault("GET /lfs/", status=503, times=2), True),
    "cut once in the weights": (Fault("GET /lfs/", cut_after=2_000_000, times=1), True),
    "cut always in the weights": (Fault("GET /lfs/", cut_after=2_000_000), False),
    "cut in a small file": (Fault("GET .*tokenizer.json", cut_after=1000), False),
    "slow weights": (Fault("GET /lfs/", delay=0.0005), True),
    "weights that stall": (Fault("GET /lfs/", delay=2.5), False),
    "a wrong byte in the weights": (Fault("GET /lfs/", corrupt=True), False),
    "a wrong byte in a small file": (Fault("GET .*tokenizer.json", corrupt=True), False),
    "a file longer than promised": (Fault("GET .*config.json", longer=50_000_000), False),
    "weights longer than promised": (Fault("GET /lfs/", longer=50_000_000), False),
    "a byte now and then": (Fault("GET .*tokenizer.json", trickle=0.02), False),
    "a listing without end": (Fault("GET .*/tree/", next_page=True), False),
    "a size that is no number": (Fault("GET .*/tree/", in_place_of=(b'"size": ', b'"size": "x", "was": ')), False),
    "a negative size": (Fault("GET .*/tree/", in_place_of=(b'"size": ', b'"size": -')), False),
    "a checksum that is none": (Fault("GET .*/tree/", in_place_of=(b'"oid": "', b'"oid": "zz')), False),
}  # fmt: skip


class TestFaults:
    @pytest.mark.parametrize("name", UPLOAD_FAULTS)
    def test_an_upload_ends_well_or_in_one_line_and_can_be_given_again(self, hub, upload, model, name):
        fault, ends_well = UPLOAD_FAULTS[name]
        hub.fail(fault)
        shown = upload("--model-path", model, "--repo-name", "alice/m")
        if ends_well:
            assert (shown.returncode, shown.stderr) == (0, "")
        else:
            assert "uploading to alice/m: " in shown.error(1)
            if ("model", "alice/m") in hub.repos:
                assert hub.files("alice/m").keys() == {".gitattributes"}
        hub.mend()
        shown = upload("--model-path", model, "--repo-name", "alice/m")
        assert (shown.returncode, shown.stderr) == (0, "")
        files, local = hub.files("alice/m"), contents(model)
        assert files.keys() - {".gitattributes"} == UPLOADED
        assert all(files[path] == local[path] for path in UPLOADED - {"README.md"})

    @pytest.mark.parametrize("name", DOWNLOAD_FAULTS)
    def test_a_download_ends_well_or_in_one_line_and_can_be_given_again(self, hub, load, toy_base, tmp_path, name):
        fault, ends_well = DOWNLOAD_FAULTS[name]
        files = publish(hub, toy_base["baseline"], "baseline-10b")
        folder = tmp_path / "outputs/hf_baseline_10b"
        hub.fail(fault)
        shown = load("--models", "hf_baseline_10b")
        if ends_well:
            assert (shown.returncode, shown.stderr) == (0, "")
        else:
            assert f"{OWNER}/domain-token-gpt2-baseline-10b" in shown.error(1)
            assert not folder.exists()
        hub.mend()
        hub.requests.clear()
        shown = load("--models", "hf_baseline_10b")
        assert (shown.returncode, shown.stderr) == (0, "")
        assert contents(folder) == files
        assert [path.name for path in (tmp_path / "outputs").iterdir()] == ["hf_baseline_10b"]

    def test_what_had_come_whole_is_not_fetched_again(self, hub, load, toy_base):
        publish(hub, toy_base["baseline"], "baseline-10b")
        hub.fail(Fault("GET /lfs/", status=500))
        load("--models", "hf_baseline_10b").error(1)
        hub.mend()
        hub.requests.clear()
        assert load("--models", "hf_baseline_10b").returncode == 0
        fetched = [asked.path for asked in hub.requests if asked.method == "GET" and "/api/" not in asked.path]
        assert {path.rpartition("/")[2] for path in fetched} == {"model.safetensors"}

    def test_a_large_file_goes_on_where_it_was_cut(self, hub, load, toy_base, tmp_path):
        state = bytes(range(256)) * 100_000  # more than the 10 MiB that the client writes at a time
        files = contents(toy_base["baseline"]) | {"checkpoint-1/optimizer.pt": state}
        hub.add_repo(f"{OWNER}/domain-token-gpt2-baseline-10b", files)
        hub.fail(Fault("GET .*optimizer", cut_after=15_000_000, times=1))
        load("--models", "hf_baseline_10b", "--include-checkpoints")  # goes on by itself ...
        assert (tmp_path / "outputs/hf_baseline_10b/checkpoint-1/optimizer.pt").read_bytes() == state
        assert "bytes=10485760-" in [asked.range for asked in hub.requests]
        shutil.rmtree(tmp_path / "outputs")
        hub.fail(Fault("GET .*optimizer", cut_after=15_000_000, times=1))
        hub.fail(Fault("GET .*optimizer", cut_after=0))
        load("--models", "hf_baseline_10b", "--include-checkpoints").error(1)
        hub.mend()
        hub.requests.clear()
        assert load("--models", "hf_baseline_10b", "--include-checkpoints").returncode == 0  # ... and when given again
        assert (tmp_path / "outputs/hf_baseline_10b/checkpoint-1/optimizer.pt").read_bytes() == state
        ranges = {asked.range for asked in hub.requests if "optimizer" in asked.path}
        assert ranges == {"bytes=10485760-"}

    def test_a_model_fails_and_the_next_is_tried(self, hub, load, toy_base, tmp_path):
        for condition, name in (("baseline", "baseline-10b"), ("mul_tokens", "mul-tokens-10b")):
            publish(hub, toy_base[condition], name)
        (tmp_path / "outputs").mkdir()
        (tmp_path / "outputs/.hf_baseline_10b.downloading").write_text("a file in the way")
        shown = load("--all")
        assert f"fetching {OWNER}/domain-token-gpt2-baseline-10b: [Errno 17] File exists" in shown.error(1)
        assert re.search(r"hf_baseline_10b .* failed\n.*hf_mul_tokens_10b .* fetched and checked", shown.stdout)

    def test_a_hub_that_refuses_everything_is_asked_once(self, hub, load):
        hub.fail(Fault(status=401, headers={"X-Error-Message": "Invalid credentials in Authorization header"}))
        assert load("--all").error(1).count("the Hub refuses the token") == 1
        assert load("--list").stdout.count("unknown") == 6
        assert len(hub.requests) == 2

    def test_retries_are_told(self, hub, upload, model):
        hub.fail(Fault("PUT /lfs/", status=503, times=2))
        shown = upload("--model-path", model, "--repo-name", "alice/m")
        assert shown.stdout.count("Retrying in") == 2
        assert "http" not in shown.stdout

    @pytest.mark.parametrize(
        "fault",
        [
            Fault(status=503),
            Fault("resolve", status=500),
            Fault(status=401, headers={"X-Error-Message": "Invalid credentials in Authorization header"}),
            Fault("GET /lfs/", cut_after=100),
            Fault(status=404),
        ],
        ids=["503", "500 at a file", "401", "cut", "404"],
    )
    def test_a_dataset_on_a_broken_hub_is_one_line_and_loads_when_it_is_mended(
        self, hub, command, toy_base, toy_data, tmp_path, fault, request
    ):
        rows = [json.loads(line) for line in (toy_data / "tulu/train.jsonl").read_text().splitlines()[:80]]
        repo_id = (
            f"bob/rows-{re.sub(r'[^a-z0-9]+', '-', request.node.callspec.id)}"  # the clients' cache knows the name
        )
        hub.add_repo(repo_id, tulu_dataset(rows), kind="dataset")
        hub.fail(fault)
        assert f"dataset {repo_id}" in train(command, toy_base, repo_id).error(1)
        assert not (tmp_path / "out/model.safetensors").exists()
        hub.mend()
        shown = train(command, toy_base, repo_id, "--resume")
        assert shown.returncode == 0, shown
        assert (tmp_path / "out/tulu_sft_results.json").exists()

    def test_a_start_model_is_made_of_a_hub_id(self, hub, command, toy_base, tmp_path):
        hub.add_repo("bob/tiny", contents(toy_base["baseline"]))
        flags = ["--source", "bob/tiny", "--condition", "mul_tokens", "--output-dir", "start"]
        hub.fail(Fault(status=503))
        assert "fetching bob/tiny" in command("scripts/prepare_base.py", *flags).error(1)
        hub.mend()
        shown = command("scripts/prepare_base.py", *flags)
        assert shown.returncode == 0, shown
        weights = (tmp_path / "start/model.safetensors").read_bytes()
        assert weights == (toy_base["baseline"] / "model.safetensors").read_bytes()
        record = json.loads((tmp_path / "start/domain_tokens.json").read_text())
        assert record["lineage"][0]["source"] == "bob/tiny"


def test_gsm8k_by_its_hub_id(hub, command, toy_base, toy_data, tmp_path):
    rows = [json.loads(line) for line in (toy_data / "gsm8k/test.jsonl").read_text().splitlines()]
    hub.add_repo("openai/gsm8k", gsm8k_dataset(rows[:5], rows), kind="dataset")
    write_jsonl(tmp_path / "gsm8k/test.jsonl", rows)
    asked = ["eval/run_gsm8k.py", "--model-path", toy_base["baseline"], "max_new_tokens=4"]
    assert command(*asked, "--output-dir", "hub").returncode == 0
    assert command(*asked, "--output-dir", "here", "--dataset-path", "gsm8k").returncode == 0
    hub_file, local_file = (tmp_path / place / "gsm8k_predictions.jsonl" for place in ("hub", "here"))
    assert hub_file.read_bytes() == local_file.read_bytes()


# Runs a script without waiting, and prints in the end how long it would have waited.
ADD_UP_WAITING = """
import atexit, runpy, sys, time
waits = []
time.sleep = waits.append
atexit.register(lambda: print(sum(waits)))
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "script",
    [
        "scripts/prepare_base.py --source alice/m --condition baseline --output-dir start",
        "scripts/load_from_hf.py --models hf_baseline_10b",
        "sft/sft_gsm8k.py --model-path base --output-dir out --condition baseline --config gsm8k.yaml",
    ],
)
def test_without_a_network_a_hub_id_fails_in_seconds(toy_base, tmp_path, script):
    """In an interpreter of its own, for the client reads its address when it is imported."""
    (tmp_path / "base").symlink_to(toy_base["baseline"])
    (tmp_path / "gsm8k.yaml").symlink_to(ROOT / "sft/configs/gsm8k.yaml")
    path, *arguments = script.split()
    nobody = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path / "hf"), "NO_PROXY": "127.0.0.1"}
    shown = subprocess.run(
        [sys.executable, "-c", ADD_UP_WAITING, ROOT / path, *arguments], cwd=tmp_path, capture_output=True, text=True,
        check=False, env=clean_environment() | nobody,
    )  # fmt: skip
    assert "the Hub cannot be reached; check the network" in Shown(1, "", shown.stderr.splitlines(True)[-1]).error(1)
    assert float(shown.stdout.splitlines()[-1]) < 20, "seconds between tries; each is refused at once"


def test_a_model_in_several_files_is_uploaded_too(hub, upload, model):
    whole = AutoModelForCausalLM.from_pretrained(model)
    (model / "model.safetensors").unlink()
    whole.save_pretrained(model, max_shard_size="2MB")
    results = json.loads((model / "tulu_sft_results.json").read_text())
    results["weights"] = weights_digest(model)
    (model / "tulu_sft_results.json").write_text(json.dumps(results))
    shown = upload("--model-path", model, "--repo-name", "alice/m")
    assert (shown.returncode, shown.stderr) == (0, "")
    shards = {path.name for path in model.glob("model-*-of-*.safetensors")} | {"model.safetensors.index.json"}
    assert len(shards) > 2
    assert hub.files("alice/m").keys() - {".gitattributes"} == UPLOADED - {"model.safetensors"} | shards


def test_a_dry_run_shows_the_card(upload, model):
    assert "\n# m\n" in upload("--model-path", model, "--repo-name", "alice/m", "--dry-run", token=None).stdout
