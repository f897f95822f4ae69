"""The two SFT stages through their own command lines: what is trained on, and what is written down."""

import itertools
import json
import math
import re
import shutil
import sys
from pathlib import Path
from typing import ClassVar

import numpy as np
import pexpect
import pytest
import safetensors.torch
import sft_gsm8k
import sft_tulu
import torch
import yaml
from conftest import CONDITIONS, write_jsonl
from interruptions import mark_as_interrupted
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from transformers import TrainerCallback
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

from domain_tokens.data.shared_text import KINDS
from domain_tokens.facts import FACT_TOKENS
from domain_tokens.models.folder import open_model
from domain_tokens.prompt import IGNORED_LABEL, prompt_text, question_conversation
from domain_tokens.runs.errors import InputError, RunError
from domain_tokens.training.trainer import SftTrainer
from domain_tokens.training.trainer_setup import make_trainer

ROOT = Path(__file__).parents[2]
QUICK = ["max_steps=2", "val_samples=20", "save_strategy=no", "logging_steps=1", "learning_rate=1e-3"]
STAGES = {
    "sft_tulu": (sft_tulu, "tulu", "tulu_sft_results.json"),
    "sft_gsm8k": (sft_gsm8k, "gsm8k", "sft_results.json"),
}


def command(stage, model, data, output, condition, *more):
    return [
        "--model-path", str(model), "--output-dir", str(output), "--condition", condition,
        "--config", str(ROOT / f"sft/configs/{STAGES[stage][1]}.yaml"), "--dataset-path", str(data / STAGES[stage][1]),
        *QUICK, *more,
    ]  # fmt: skip


@pytest.fixture
def trainers(monkeypatch):
    """Every trainer that a script makes, to look at the very batches it trains on."""
    made, make = [], make_trainer
    monkeypatch.setattr("domain_tokens.training.stage.make_trainer", lambda *args: made.append(make(*args)) or made[-1])
    return made


def trained_rows(trainer):
    """ids and labels of every row, out of the parts that go through the model."""
    for batch in (*trainer.get_train_dataloader(), *trainer.get_eval_dataloader()):
        for part in batch["parts"]:
            ids = part["input_ids"][0]
            labels = torch.full_like(ids, IGNORED_LABEL)
            labels[part["trained"] + 1] = part["targets"]
            for first, last in itertools.pairwise(part["row_ends"].tolist()):
                yield ids[first:last], labels[first:last]


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("condition", CONDITIONS)
def test_a_stage_trains_on_assistant_text_and_end_of_text_and_on_nothing_else(
    stage, condition, toy_base, toy_data, toy_tokenizer, tmp_path, trainers
):
    STAGES[stage][0].main(command(stage, toy_base[condition], toy_data, tmp_path / "out", condition))
    end, facts = toy_tokenizer.eos_token_id, toy_tokenizer.convert_tokens_to_ids([*FACT_TOKENS, "<PLACEBO>"])
    rows = fact_count = 0
    for ids, labels in trained_rows(trainers[0]):
        assert labels[-1] == end, "end-of-text has no loss"  # pad and end-of-text share an id here
        text = toy_tokenizer.decode(ids)
        trained = toy_tokenizer.decode(labels[labels != IGNORED_LABEL])
        turns = text.split("\nAssistant:")
        asked, *replies = [turn.split("<|endoftext|>")[0] for turn in turns]
        assert trained == "<|endoftext|>".join(replies) + "<|endoftext|>", "user text has loss, or a reply has none"
        assert asked.startswith(("User: ", "System: "))
        fact_count += int(np.isin(ids, facts).sum())
        rows += 1
    assert rows > 250
    assert fact_count == 0 if condition == "baseline" else fact_count > 200


def test_training_text_starts_with_the_inference_prompt(toy_base, toy_data, toy_tokenizer, tmp_path, trainers):
    sft_gsm8k.main(command("sft_gsm8k", toy_base["mul_tokens"], toy_data, tmp_path / "out", "mul_tokens"))
    for ids, labels in trained_rows(trainers[0]):
        first_trained = next(i for i, label in enumerate(labels) if label != IGNORED_LABEL)
        asked = toy_tokenizer.decode(ids[:first_trained]).removeprefix("User: ").removesuffix("\nAssistant:")
        prompt = prompt_text(question_conversation(asked), toy_tokenizer.eos_token)
        assert toy_tokenizer.encode(prompt, add_special_tokens=False) == ids[:first_trained].tolist()


opened: list[str] = []
watching = False


def _record_opened_files(event, args):
    if watching and event == "open":
        opened.append(str(args[0]))


sys.addaudithook(_record_opened_files)  # it cannot be taken off again, so it looks at a switch


@pytest.mark.parametrize("stage", STAGES)
def test_training_never_opens_the_test_split(stage, toy_base, toy_data, tmp_path):
    global watching
    opened.clear()
    watching = True
    try:
        STAGES[stage][0].main(command(stage, toy_base["baseline"], toy_data, tmp_path / "out", "baseline"))
    finally:
        watching = False
    assert [path for path in opened if path.endswith("train.jsonl")]
    assert not [path for path in opened if path.endswith("test.jsonl")]


@pytest.mark.parametrize("stage", STAGES)
def test_a_finished_stage_is_a_whole_model_folder_that_moved(stage, toy_base, toy_data, tmp_path, capsys):
    start, output = toy_base["mul_tokens"], tmp_path / "out"
    STAGES[stage][0].main(command(stage, start, toy_data, output, "mul_tokens"))
    results_name = STAGES[stage][2]
    names = {path.name for path in output.iterdir()}
    assert names >= {
        "config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja", "resolved_config.yaml",
        "domain_tokens.json", "runs", results_name,
    }  # fmt: skip
    assert not [name for name in names if name.startswith((".", "checkpoint"))]
    assert list((output / "runs").glob("events.out.tfevents.*"))

    results = json.loads((output / results_name).read_text())
    assert results["condition"] == "mul_tokens"
    assert results["seed"] == 42
    assert results["total_train_samples"] + results["total_val_samples"] == 300
    assert results["total_val_samples"] == 20
    assert results["injected_mul_tokens"] == sum(results["injected_by_fact"].values()) > 200
    assert results["peak_memory"]["process"] > 100e6
    assert results["packed"] is True
    assert np.isfinite([results["train_loss"], results["eval_loss"], results["train_runtime"]]).all()
    assert 0 < results["tokens_trained"] < results["rows"]["train"]["trained_tokens"]
    assert results["config"]["data"]["max_length"] == {"sft_tulu": 1024, "sft_gsm8k": 512}[stage]
    assert results["environment"].keys() >= {"commit", "dirty", "libraries", "device"}
    assert "max_steps: 2  # override" in (output / "resolved_config.yaml").read_text()
    assert yaml.safe_load((output / "resolved_config.yaml").read_text())["trainer"]["max_steps"] == 2

    before, after = open_model(str(start), None), open_model(str(output), None)
    assert [entry["stage"] for entry in after.lineage] == ["prepare_base", stage]
    assert after.lineage[-1]["start_weights"] == before.weights == results["start_weights"]
    assert after.weights == results["weights"]
    for name, parameter in after.model.named_parameters():
        assert not torch.equal(parameter, dict(before.model.named_parameters())[name]), f"{name} did not move"

    printed = capsys.readouterr().out
    assert "«" in printed and "<|endoftext|>»" in printed
    assert "validation loss" in printed


def test_the_loss_does_not_depend_on_micro_batches(toy_base, toy_data, tmp_path):
    losses = []
    layouts = ("micro_batch_tokens=100000", "micro_batch_tokens=1", "per_device_train_batch_size=5", "seed=42")
    for number, layout in enumerate(layouts):
        output = tmp_path / str(number)
        sft_tulu.main(command("sft_tulu", toy_base["baseline"], toy_data, output, "baseline", layout))
        results = json.loads((output / "tulu_sft_results.json").read_text())
        losses.append((results["train_loss"], results["eval_loss"], results["tokens_trained"]))
    for other in losses[1:]:
        assert losses[0] == pytest.approx(other, rel=1e-4)


def test_the_validation_loss_is_the_mean_over_tokens(toy_base, toy_data, tmp_path, trainers):
    sft_tulu.main(command("sft_tulu", toy_base["baseline"], toy_data, tmp_path / "out", "baseline"))
    results = json.loads((tmp_path / "out/tulu_sft_results.json").read_text())
    model = open_model(str(tmp_path / "out"), None).model
    summed = tokens = 0
    bits = dict.fromkeys(KINDS, 0.0)
    for i in range(len(trainers[0].eval_dataset)):
        row = trainers[0].eval_dataset[i]
        ids, labels = torch.tensor(row["input_ids"]), torch.tensor(row["labels"])
        with torch.no_grad():
            logits = model(ids[None]).logits[0]
        summed += torch.nn.functional.cross_entropy(logits[:-1], labels[1:].long(), reduction="sum").item()
        tokens += int((labels[1:] != IGNORED_LABEL).sum())
        for kind in KINDS:
            own = torch.tensor(row["kinds"][1:]) == kind
            bits[kind] += torch.nn.functional.cross_entropy(
                logits[:-1][own], ids[1:][own].long(), reduction="sum"
            ).item()
    assert results["eval_loss"] == pytest.approx(summed / tokens, rel=1e-4)
    for kind, name in KINDS.items():
        size = trainers[0].eval_dataset.shared_bytes[name]
        found = results[f"eval_{name}_bits_per_byte"]
        assert size > 20
        assert found == pytest.approx(bits[kind] / math.log(2) / size, rel=1e-4)
        assert results["loss_curves"][f"{name}_bits"][-1] == [results["steps"], found]


def test_validation_of_padded_rows_and_of_packed_rows_is_the_same(toy_base, toy_data, tmp_path, monkeypatch):
    found = []
    for name in ("packed", "padded"):
        if name == "padded":
            monkeypatch.setattr("domain_tokens.training.trainer_setup.prepare_model", lambda model: "for this test")
        sft_gsm8k.main(command("sft_gsm8k", toy_base["annotated"], toy_data, tmp_path / name, "annotated"))
        results = json.loads((tmp_path / name / "sft_results.json").read_text())
        found.append([results[key] for key in ("eval_loss", "eval_number_bits_per_byte", "eval_word_bits_per_byte")])
    assert found[0] == pytest.approx(found[1], rel=1e-5)


def test_the_ablation_trains_the_condition_without_facts_and_says_so(toy_base, toy_data, tmp_path):
    more = ["--no-inject-mul-tokens"]
    sft_gsm8k.main(command("sft_gsm8k", toy_base["mul_tokens"], toy_data, tmp_path / "out", "mul_tokens", *more))
    results = json.loads((tmp_path / "out/sft_results.json").read_text())
    assert (results["condition"], results["inject_mul_tokens"], results["injected_mul_tokens"]) == (
        "mul_tokens",
        False,
        0,
    )


@pytest.mark.parametrize("name", ["gradient_checkpointing", "activation_checkpointing"])
def test_recomputed_activations_change_no_loss(name, toy_base, toy_data, tmp_path):
    losses = []
    for more in ([], [f"{name}=true"]):
        output = tmp_path / str(len(more))
        sft_tulu.main(command("sft_tulu", toy_base["baseline"], toy_data, output, "baseline", *more))
        losses.append(json.loads((output / "tulu_sft_results.json").read_text())["train_loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


def test_a_model_that_cannot_recompute_its_layers_is_refused(toy_base, toy_data, tmp_path, monkeypatch):
    monkeypatch.setattr("transformers.GPT2LMHeadModel.supports_gradient_checkpointing", False)
    with pytest.raises(InputError, match="activation_checkpointing is True, expected false, for this model cannot"):
        sft_tulu.main(
            command("sft_tulu", toy_base["baseline"], toy_data, tmp_path, "baseline", "gradient_checkpointing=true")
        )
    assert not list(tmp_path.iterdir())


def test_a_model_that_cannot_be_packed_is_padded_and_says_so(toy_base, toy_data, tmp_path, monkeypatch, capsys):
    losses = {}
    for is_packed in (True, False):
        if not is_packed:
            monkeypatch.setattr("domain_tokens.training.packing._TOLERANCE", 0)
        sft_tulu.main(command("sft_tulu", toy_base["baseline"], toy_data, tmp_path / str(is_packed), "baseline"))
        results = json.loads((tmp_path / str(is_packed) / "tulu_sft_results.json").read_text())
        assert results["packed"] is is_packed
        losses[is_packed] = results["train_loss"]
        assert ("rows are padded, not packed" in capsys.readouterr().out) is not is_packed
    assert losses[True] == pytest.approx(losses[False], rel=1e-4)


def test_the_environment_does_not_change_what_the_recipe_decides(toy_base, toy_data, tmp_path, monkeypatch):
    weights = {}
    for name, more in (("plain", []), ("environment", []), ("recipe", ["bf16=true", "use_cpu=true"])):
        if name == "environment":
            monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
            monkeypatch.setenv("ACCELERATE_DYNAMO_BACKEND", "inductor")
            monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4")
        sft_tulu.main(command("sft_tulu", toy_base["baseline"], toy_data, tmp_path / name, "baseline", *more))
        results = json.loads((tmp_path / name / "tulu_sft_results.json").read_text())
        assert results["mixed_precision"] == ("bf16" if name == "recipe" else "no")
        weights[name] = results["weights"]
    assert weights["environment"] == weights["plain"] != weights["recipe"]


@pytest.mark.parametrize("way", ["DEEPSPEED", "MEGATRON_LM", "PARALLELISM_CONFIG"])
def test_ways_of_training_that_the_recipe_does_not_have_are_refused(toy_base, toy_data, tmp_path, monkeypatch, way):
    monkeypatch.setenv(f"ACCELERATE_USE_{way}", "true")
    with pytest.raises(InputError, match=f"ACCELERATE_USE_{way} is true, expected false.*; unset it"):
        sft_tulu.main(command("sft_tulu", toy_base["baseline"], toy_data, tmp_path / "out", "baseline"))
    assert not list((tmp_path / "out").iterdir())


def test_full_memory_names_what_to_lower(toy_base, toy_data, tmp_path, monkeypatch):
    monkeypatch.setattr(SftTrainer, "training_step", lambda *args: torch.empty(1 << 60, dtype=torch.uint8))
    with pytest.raises(RunError, match="the machine's memory is full; give micro_batch_tokens, less than 4096"):
        sft_tulu.main(command("sft_tulu", toy_base["baseline"], toy_data, tmp_path / "out", "baseline"))


def screen(printed: str, columns: int) -> list[str]:
    """Return the lines that a terminal shows after `printed`: of its control codes, \r, \n and erase to end of line."""
    lines, column = [""], 0
    for piece in re.findall(r"\x1b\[K|.", printed, re.DOTALL):
        if piece == "\r":
            column = 0
        elif piece == "\n":
            lines.append("")
        elif piece == "\x1b[K":
            lines[-1] = lines[-1][:column]
        else:
            if column == columns:
                lines.append("")
                column = 0
            lines[-1] = lines[-1].ljust(column)[:column] + piece + lines[-1][column + 1 :]
            column += 1
    return [line.rstrip() for line in lines]


def test_a_terminal_shows_one_bar_and_whole_messages_after_ctrl_c(toy_base, toy_data, tmp_path):
    arguments = command("sft_tulu", toy_base["baseline"], toy_data, tmp_path / "out", "baseline", "max_steps=100000")
    child = pexpect.spawn(
        sys.executable, [str(ROOT / "sft/sft_tulu.py"), *arguments], dimensions=(24, 80), timeout=300, encoding="utf-8"
    )
    child.expect("step     4 of")
    child.expect("step/s|s/step")
    child.sendintr()
    shown = screen(child.before + child.after + child.read(), 80)
    assert "stopping after this step, with a checkpoint; once more stops at once" in shown
    assert len([line for line in shown if "step/s" in line or "s/step" in line]) == 1
    assert any(line.startswith("error: interrupted; continue with: uv run python") for line in shown)


def test_flags_reach_the_run(toy_base, toy_data, tmp_path):
    more = ["--seed", "7", "--max-train-samples", "64", "--inject-mul-tokens"]
    sft_gsm8k.main(command("sft_gsm8k", toy_base["mul_tokens"], toy_data, tmp_path / "out", "mul_tokens", *more))
    results = json.loads((tmp_path / "out/sft_results.json").read_text())
    assert (results["seed"], results["total_train_samples"], results["inject_mul_tokens"]) == (7, 64, True)
    assert results["overridden"] >= ["data.dataset", "data.train_samples", "data.val_samples", "seed"]


@pytest.fixture
def interrupted(toy_base, toy_data, tmp_path):
    """A run of four steps as it is when killed after its first checkpoint; the whole run's results and weights."""
    output = tmp_path / "out"
    arguments = command("sft_tulu", toy_base["baseline"], toy_data, output, "baseline")
    arguments += ["save_strategy=steps", "save_steps=2", "save_total_limit=2", "max_steps=4", "eval_steps=2"]
    sft_tulu.main(arguments)
    weights = (output / "model.safetensors").read_bytes()
    whole = mark_as_interrupted(output, "tulu_sft_results.json")
    shutil.rmtree(output / "checkpoint-4")
    return output, arguments, whole, weights


def test_resume_continues_from_the_last_checkpoint_as_if_nothing_had_happened(interrupted, capsys):
    output, arguments, whole, weights = interrupted
    shutil.copytree(output / "checkpoint-2", output / "checkpoint-3")
    (output / "checkpoint-3/trainer_state.json").unlink()  # half-written, so it does not count
    capsys.readouterr()
    sft_tulu.main([*arguments, "--resume"])
    printed = capsys.readouterr().out
    assert "step     3 of 4" in printed
    assert "step     1 of 4" not in printed
    resumed = json.loads((output / "tulu_sft_results.json").read_text())
    assert (output / "model.safetensors").read_bytes() == weights
    for key in ("train_loss", "eval_loss", "steps", "tokens_trained"):
        assert resumed[key] == whole[key], key
    assert not (output / "unfinished_run.json").exists()

    sft_tulu.main([*arguments, "--resume"])
    assert "complete already" in capsys.readouterr().out
    with pytest.raises(InputError, match=r"made with config\.trainer\.learning_rate 0\.001, now it is 0\.1"):
        sft_tulu.main([*arguments, "--resume", "learning_rate=0.1"])
    with pytest.raises(InputError, match="--overwrite replaces it"):
        sft_tulu.main(arguments)
    assert (output / "model.safetensors").read_bytes() == weights


def test_a_run_is_only_continued_as_what_it_was_and_never_lost_by_mistake(interrupted, toy_base):
    output, arguments, *_ = interrupted
    for change, message in (
        ([], "holds an interrupted run; --resume continues it"),
        (["--resume", "--seed", "7"], "made with config.seed 42, now it is 7"),
        (["--resume", "--overwrite"], "contradict each other"),
        (["--resume", "--condition", "mul_tokens", "--model-path", str(toy_base["mul_tokens"])], "made with condition"),
        (["--overwrite", "lr_scheduler_type=zigzag"], "zigzag"),
        (["--overwrite", "adam_beta1=2"], "trainer: "),
    ):
        with pytest.raises(InputError, match=message):
            sft_tulu.main([*arguments, *change])
        assert (output / "checkpoint-2/model.safetensors").exists()


def test_a_run_does_not_go_on_with_other_data(interrupted, toy_data):
    output, arguments, _, weights = interrupted
    file = toy_data / "tulu/train.jsonl"
    before = file.read_bytes()
    try:
        file.write_bytes(before.replace(b"How much", b"How many"))
        with pytest.raises(InputError, match=r"was begun on other rows: .*/tulu is not what it was"):
            sft_tulu.main([*arguments, "--resume"])
        file.write_bytes(before)
        sft_tulu.main([*arguments, "--resume"])
        assert (output / "model.safetensors").read_bytes() == weights
        file.write_bytes(before.replace(b"How much", b"How many"))
        with pytest.raises(InputError, match="was made with dataset_sha256 "):
            sft_tulu.main([*arguments, "--resume"])
    finally:
        file.write_bytes(before)
    sft_tulu.main([*arguments, "--resume"])
    assert (output / "model.safetensors").read_bytes() == weights


def damaged(name, change):
    """name: of a file in a checkpoint. change: of its bytes; None takes it away."""

    def damage(checkpoint):
        file = checkpoint / name
        content = file.read_bytes()
        file.unlink()
        if change is not None:
            file.write_bytes(change(content))

    return damage


def with_tensor_renamed(content):
    tensors = safetensors.torch.load(content)
    tensors["transformer.wpe.other"] = tensors.pop("transformer.wpe.weight")
    return safetensors.torch.save(tensors)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (damaged("model.safetensors", None), r"has no model.safetensors \(was it saved with FSDP\?\)"),
        (damaged("model.safetensors", lambda content: content[: len(content) // 2]), "has a damaged model.safetensors"),
        (damaged("model.safetensors", with_tensor_renamed), "holds another model's weights"),
        (damaged("optimizer.pt", None), r"has no optimizer.pt \(was it saved with FSDP\?\)"),
        (damaged("optimizer.pt", lambda content: content[:-1000]), "has a damaged optimizer.pt"),
        (damaged("optimizer.pt", lambda content: b""), "has a damaged optimizer.pt"),
        (damaged("scheduler.pt", None), "has no scheduler.pt"),
        (damaged("rng_state.pth", None), "has no rng_state.pth"),
        (damaged("trainer_state.json", lambda content: b'{"global_step": 3}'), "has a damaged trainer_state.json"),
        (
            lambda checkpoint: (
                (checkpoint / "rng_state.pth").rename(checkpoint / "rng_state_0.pth")
                and shutil.copy(checkpoint / "rng_state_0.pth", checkpoint / "rng_state_1.pth")
            ),
            "was saved by 2 processes, now there are 1",
        ),
    ],
)
def test_a_damaged_checkpoint_gives_way_to_an_older_one_and_is_never_half_taken(interrupted, damage, said, capsys):
    output, arguments, _, weights = interrupted
    older, newer = output / "checkpoint-2", output / "checkpoint-3"
    shutil.copytree(older, newer)
    state = json.loads((newer / "trainer_state.json").read_text())
    (newer / "trainer_state.json").write_text(json.dumps(state | {"global_step": 3}))
    damage(newer)
    shutil.copytree(older, output / "checkpoint-abc")
    shutil.move(older, output / "elsewhere")
    with pytest.raises(InputError, match=f"checkpoint-3 {said}; continue the run as it was started, or --overwrite"):
        sft_tulu.main([*arguments, "--resume"])
    shutil.move(output / "elsewhere", older)
    capsys.readouterr()
    sft_tulu.main([*arguments, "--resume"])
    assert "step     3 of 4" in capsys.readouterr().out
    assert (output / "model.safetensors").read_bytes() == weights


def test_a_run_that_diverges_is_no_result(toy_base, toy_data, tmp_path):
    arguments = command("sft_tulu", toy_base["baseline"], toy_data, tmp_path / "out", "baseline", "max_steps=4")
    with pytest.raises(
        RunError, match=r"the loss is nan after step \d, so the model is lost; --overwrite starts from scratch"
    ):
        sft_tulu.main([*arguments, "learning_rate=1e30"])
    assert not (tmp_path / "out/tulu_sft_results.json").exists()
    sft_tulu.main([*arguments, "--overwrite"])


def test_a_run_that_is_asked_to_stop_where_it_saves_anyway_saves_once(toy_base, toy_data, tmp_path, monkeypatch):
    saved = []
    save = SftTrainer.save_model
    monkeypatch.setattr(SftTrainer, "save_model", lambda *args, **more: saved.append(args) or save(*args, **more))
    monkeypatch.setattr("domain_tokens.training.callbacks.on_any_process", lambda *args: len(saved) == 1)
    arguments = command("sft_tulu", toy_base["baseline"], toy_data, tmp_path / "out", "baseline")
    with pytest.raises(KeyboardInterrupt):
        sft_tulu.main([*arguments, "save_strategy=steps", "save_steps=1", "max_steps=4"])
    assert len(saved) == 2
    assert (tmp_path / "out/checkpoint-2/trainer_state.json").exists()


def test_a_run_that_is_killed_after_its_last_checkpoint_takes_no_further_step(toy_base, toy_data, tmp_path, capsys):
    output = tmp_path / "out"
    arguments = command("sft_tulu", toy_base["baseline"], toy_data, output, "baseline", "lr_scheduler_type=constant")
    arguments += ["save_strategy=steps", "save_steps=2", "max_steps=4", "eval_steps=2"]
    sft_tulu.main(arguments)
    weights = (output / "model.safetensors").read_bytes()
    whole = mark_as_interrupted(output, "tulu_sft_results.json")
    (output / ".writing").mkdir()
    (output / ".writing/half").write_text("of a model")
    capsys.readouterr()
    sft_tulu.main([*arguments, "--resume"])
    assert "of 4  loss" not in capsys.readouterr().out
    again = json.loads((output / "tulu_sft_results.json").read_text())
    for key in ("steps", "train_loss", "eval_loss", "loss_curves", "tokens_trained", "weights"):
        assert again[key] == whole[key], key
    assert (output / "model.safetensors").read_bytes() == weights
    assert not (output / "half").exists()


def test_a_run_that_was_moved_ends_with_its_own_best_weights(toy_base, toy_data, tmp_path, capsys):
    best = ["load_best_model_at_end=true", "eval_strategy=steps", "eval_steps=1", "save_strategy=steps", "save_steps=1"]

    def run(output, *more):
        arguments = command("sft_tulu", toy_base["baseline"], toy_data, output, "baseline", *best, "max_steps=4")
        arguments += ["save_total_limit=null"]
        sft_tulu.main([*arguments, "learning_rate=1e-1", *more])  # the first steps are the best ones
        return (output / "model.safetensors").read_bytes()

    weights = run(tmp_path / "a")
    mark_as_interrupted(tmp_path / "a", "tulu_sft_results.json")
    state = json.loads((tmp_path / "a/checkpoint-4/trainer_state.json").read_text())
    name = Path(state["best_model_checkpoint"]).name
    assert name != "checkpoint-4"
    (tmp_path / "a").rename(tmp_path / "moved")
    assert run(tmp_path / "a", "seed=7") != weights  # lies where the moved run's best checkpoint lay
    capsys.readouterr()
    assert run(tmp_path / "moved", "--resume") == weights

    mark_as_interrupted(tmp_path / "moved", "tulu_sft_results.json")
    for number in (1, 2, 3):
        shutil.rmtree(tmp_path / f"moved/checkpoint-{number}")
    with pytest.raises(InputError, match=f"checkpoint-4 names {name} as the best, which is gone"):
        run(tmp_path / "moved", "--resume")


def test_a_resumed_run_does_not_evaluate_its_start_again(toy_base, toy_data, tmp_path):
    output = tmp_path / "out"
    arguments = command("sft_tulu", toy_base["baseline"], toy_data, output, "baseline", "eval_on_start=true")
    arguments += ["save_strategy=steps", "save_steps=2", "max_steps=4", "eval_steps=2"]
    sft_tulu.main(arguments)
    whole = mark_as_interrupted(output, "tulu_sft_results.json")
    shutil.rmtree(output / "checkpoint-4")
    sft_tulu.main([*arguments, "--resume"])
    curves = json.loads((output / "tulu_sft_results.json").read_text())["loss_curves"]
    assert [step for step, _ in curves["validation"]] == [0, 2, 4]
    assert curves == whole["loss_curves"]


def test_a_start_model_with_another_activation_makes_another_run(interrupted, toy_base, tmp_path):
    _, arguments, *_ = interrupted
    changed = tmp_path / "changed"
    shutil.copytree(toy_base["baseline"], changed)
    config = json.loads((changed / "config.json").read_text())
    (changed / "config.json").write_text(json.dumps(config | {"activation_function": "relu"}))
    arguments[arguments.index("--model-path") + 1] = str(changed)
    with pytest.raises(InputError, match="was made with start_architecture '.*', now it is"):
        sft_tulu.main([*arguments, "--resume"])


def test_overwrite_starts_an_interrupted_run_from_scratch(interrupted, capsys):
    output, arguments, whole, weights = interrupted
    capsys.readouterr()
    sft_tulu.main([*arguments, "--overwrite"])
    assert "step     1 of 4" in capsys.readouterr().out
    assert json.loads((output / "tulu_sft_results.json").read_text())["train_loss"] == whole["train_loss"]
    assert (output / "model.safetensors").read_bytes() == weights


def test_another_models_folder_is_not_written_to(toy_base, toy_data, tmp_path):
    output = shutil.copytree(toy_base["baseline"], tmp_path / "out")
    weights = (output / "model.safetensors").read_bytes()
    with pytest.raises(InputError, match=r"holds another model \(config\.json\)"):
        sft_tulu.main(command("sft_tulu", toy_base["baseline"], toy_data, output, "baseline"))
    with pytest.raises(InputError, match="is the model to start from"):
        sft_tulu.main(command("sft_tulu", output, toy_data, output, "baseline", "--overwrite"))
    assert (output / "model.safetensors").read_bytes() == weights
    with pytest.raises(InputError, match="--output-dir is empty"):
        sft_tulu.main(command("sft_tulu", output, toy_data, "", "baseline"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--inject-mul-tokens"], "contradicts --condition baseline"),
        (["--condition", "mul_tokens"], "contradicts .*which is a baseline model"),
        (["--config", "none.yaml"], "config none.yaml does not exist"),
        (["--dataset-path", "./none"], "dataset ./none does not exist"),
        (["--model-path", "none"], "model folder none does not exist"),
        (["learnin_rate=1"], "did you mean"),
        (["--condition", "other"], "invalid choice"),
        (["--max-train-samples", "0"], "data.train_samples is 0"),
        (["per_device_train_batch_size=0"], "expected at least 1 row at a time"),
        (["micro_batch_tokens=0"], "micro_batch_tokens is 0, expected at least 1, or null"),
        (["lr_scheduler_type=zigzag"], "trainer: .*zigzag"),
        (["--seed", "-1"], "seed is -1"),
        (["learning_rate=-1"], "trainer: .*learning rate"),
        (["num_train_epochs=0", "max_steps=-1"], "num_train_epochs is 0"),
        (["lr_scheduler_kwargs={a: 1}"], "trainer: "),
        (["report_to=wandb"], "trainer.report_to is wandb, which is not installed; uv pip install wandb"),
        (["report_to=all"], "trainer.report_to is all, which is no service; known are .*, tensorboard, .*wandb"),
        (["report_to=[none, wandbb]"], "trainer.report_to is wandbb, which is no service .did you mean wandb"),
        (["report_to=5"], "trainer.report_to is 5, expected a service's name or a list of names"),
        (["eval_samples=-1"], "eval_samples is -1, expected 0 to 64 prompts"),
        (["neftune_noise_alpha=-5"], r"trainer.neftune_noise_alpha is -5\.?0?, expected more than 0, or null"),
        (["neftune_noise_alpha=.nan"], "trainer.neftune_noise_alpha is nan, expected a finite number"),
        (
            ["activation_checkpointing=true", 'activation_checkpointing_kwargs={"bogus": 1}'],
            "{'bogus': 1}, expected use_re",
        ),
        (["gradient_checkpointing=true", 'gradient_checkpointing_kwargs={"every_n_layers": 0}'], "of at least 1"),
        (
            ['accelerator_config={"gradient_accumulation_kwargs": {"num_steps": 4}}'],
            "'num_steps': 4.*global_batch_size",
        ),
        (["debug=tpu_metrics_debug"], "trainer.debug is 'tpu_metrics_debug', expected no TPU's option"),
        (
            ["metric_for_best_model=accuracy", "load_best_model_at_end=true", "eval_strategy=no"],
            "accuracy', expected loss, for nothing else",
        ),
    ],
)
def test_wrong_usage_is_refused_before_anything_is_written(toy_base, toy_data, tmp_path, change, message):
    arguments = command("sft_gsm8k", toy_base["baseline"], toy_data, tmp_path / "out", "baseline", *change)
    with pytest.raises(InputError, match=message):
        sft_gsm8k.main(arguments)
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


def test_sample_prompts_are_asked_at_every_validation_and_change_nothing(toy_base, toy_data, tmp_path, capsys):
    for count in (0, 2):
        arguments = command("sft_gsm8k", toy_base["annotated"], toy_data, tmp_path / str(count), "annotated")
        sft_gsm8k.main([*arguments, f"eval_samples={count}", "eval_strategy=steps", "eval_steps=1"])
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("0", "2")]
    assert weights[0] == weights[1]
    assert capsys.readouterr().out.count("\n  User: ") == 2  # the first prompt, at two validations
    logged = EventAccumulator(str(tmp_path / "2/runs")).Reload()
    assert logged.Tags()["tensors"] == ["sample 1/text_summary", "sample 2/text_summary"]
    texts = [event.tensor_proto.string_val[0].decode() for event in logged.Tensors("sample 2/text_summary")]
    assert len(texts) == 2
    assert all(re.match(r"User: .*\nAssistant: \*\*", text) for text in texts)


class Service(TrainerCallback):
    """Stands for a service's callback of transformers, and keeps what it was told."""

    told: ClassVar[list] = []

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        self.told.append(json.dumps([args.to_dict(), str(model), str(kwargs)]))

    def on_log(self, args, state, control, model=None, logs=None, **kwargs):
        self.told.append(json.dumps([args.to_dict(), logs]))


def test_a_service_is_told_losses_and_no_path(toy_base, toy_data, tmp_path, monkeypatch):
    monkeypatch.setitem(INTEGRATION_TO_CALLBACK, "wandb", Service)
    arguments = command("sft_gsm8k", toy_base["baseline"], toy_data, tmp_path / "my_run", "baseline")
    sft_gsm8k.main([*arguments, "report_to=wandb"])
    assert '"run_name": "my_run"' in Service.told[0]
    assert any('"loss": ' in told for told in Service.told[1:])
    assert not any(str(tmp_path) in told for told in Service.told)
    assert not (tmp_path / "my_run/runs").exists(), "TensorBoard was not asked for"


def test_rows_longer_than_the_model_can_see_are_refused(toy_base, tmp_path):
    write_jsonl(tmp_path / "gsm8k/train.jsonl", [{"question": "How long?", "answer": "7 " * 600 + "#### 7"}] * 10)
    arguments = command("sft_gsm8k", toy_base["baseline"], tmp_path, tmp_path / "out", "baseline", "max_length=2048")
    with pytest.raises(InputError, match=r"a row has 12\d\d tokens, but .* has 1024 positions; give max_length=1024"):
        sft_gsm8k.main(arguments)


def test_unusable_rows_are_reported_and_recorded(toy_base, tmp_path, capsys):
    rows = [{"question": f"What is {i} plus 1?", "answer": f"#### {i + 1}"} for i in range(199)] + [{"question": "x"}]
    write_jsonl(tmp_path / "gsm8k/train.jsonl", rows)
    sft_gsm8k.main(command("sft_gsm8k", toy_base["mul_tokens"], tmp_path, tmp_path / "out", "mul_tokens"))
    printed = capsys.readouterr().out
    assert "1 × no answer, first in line 200" in printed
    assert "no fact stands in these rows" in printed
    results = json.loads((tmp_path / "out/sft_results.json").read_text())
    assert results["rows"]["unusable"] == {"no answer": {"rows": 1, "first_line": 200}}
