from pathlib import Path

import pytest
import yaml

from domain_tokens.runs.config import load_config
from domain_tokens.runs.config_schema import ExperimentConfig, Gsm8kEvalConfig, ProbesEvalConfig, SftConfig
from domain_tokens.runs.errors import InputError

ROOT = Path(__file__).parents[2]
TULU, GSM8K = ROOT / "sft/configs/tulu.yaml", ROOT / "sft/configs/gsm8k.yaml"


def test_the_shipped_recipes_say_what_the_readme_promises():
    tulu, gsm8k = load_config(TULU, SftConfig).config, load_config(GSM8K, SftConfig).config
    assert (tulu.data.max_length, tulu.data.train_samples, tulu.data.val_samples) == (1024, 200_000, 1000)
    assert (gsm8k.data.max_length, gsm8k.data.train_samples) == (512, None)
    assert (tulu.trainer["num_train_epochs"], gsm8k.trainer["num_train_epochs"]) == (1, 3)
    assert (tulu.trainer["warmup_steps"], gsm8k.trainer["warmup_steps"]) == (0.05, 0.1)
    for config in (tulu, gsm8k):
        assert config.global_batch_size == 32
        assert config.trainer["learning_rate"] == 2e-5
        assert config.trainer["weight_decay"] == 0.01
        assert config.data.loss_on == "assistant"


def test_every_shipped_config_loads():
    load_config(ROOT / "eval/configs/gsm8k.yaml", Gsm8kEvalConfig)
    load_config(ROOT / "eval/configs/probes.yaml", ProbesEvalConfig)
    for name in ("toy", "experiment"):
        experiment = load_config(ROOT / f"scripts/configs/{name}.yaml", ExperimentConfig).config
        for stage in (experiment.sft_tulu, experiment.sft_gsm8k):
            load_config(ROOT / stage.config, SftConfig, stage.overrides)
        load_config(ROOT / experiment.eval_gsm8k.config, Gsm8kEvalConfig, experiment.eval_gsm8k.overrides)
        load_config(ROOT / experiment.eval_probes.config, ProbesEvalConfig, experiment.eval_probes.overrides)


def test_overrides_name_a_key_in_full_or_by_its_last_part():
    loaded = load_config(
        TULU, SftConfig, ["trainer.learning_rate=1e-4", "max_length=64", "save_strategy=no", "max_steps=5"]
    )
    assert loaded.config.trainer["learning_rate"] == 1e-4
    assert loaded.config.data.max_length == 64
    assert loaded.config.trainer["save_strategy"] == "no"  # not YAML 1.1's false
    assert loaded.config.trainer["max_steps"] == 5
    assert loaded.overridden == {
        "trainer.learning_rate", "data.max_length", "trainer.save_strategy", "trainer.max_steps",
    }  # fmt: skip


def test_flags_override_and_flags_not_given_do_not():
    loaded = load_config(TULU, SftConfig, [], {"seed": 7, "data.dataset": None})
    assert loaded.config.seed == 7
    assert loaded.config.data.dataset == "allenai/tulu-3-sft-mixture"


def test_the_resolved_config_marks_overrides_and_loads_again(tmp_path):
    loaded = load_config(TULU, SftConfig, ["learning_rate=1e-4", "save_strategy=no"])
    text = loaded.as_yaml()
    assert "  learning_rate: 0.0001  # override\n" in text
    assert "  weight_decay: 0.01\n" in text
    (tmp_path / "resolved_config.yaml").write_text(text)
    assert load_config(tmp_path / "resolved_config.yaml", SftConfig).config == loaded.config
    assert yaml.safe_load(text)["trainer"]["save_strategy"] == "no"


def test_words_that_yaml_1_1_reads_as_numbers_or_dates_are_texts():
    overrides = ["data.dataset=2026-11-27", "run_name=010", "weight_decay=.5", "learning_rate=1_0.5e-4"]
    loaded = load_config(GSM8K, SftConfig, overrides[:3]).config
    assert (loaded.data.dataset, loaded.trainer["run_name"], loaded.trainer["weight_decay"]) == (
        "2026-11-27",
        "010",
        0.5,
    )
    with pytest.raises(InputError, match="learning_rate is '1_0.5e-4', expected float"):
        load_config(GSM8K, SftConfig, overrides)


def test_a_flag_and_an_override_that_contradict_are_refused_and_the_last_override_holds():
    with pytest.raises(InputError, match="seed is 5 by its flag, 7 by an override; give it once"):
        load_config(GSM8K, SftConfig, ["seed=7"], {"seed": 5})
    loaded = load_config(GSM8K, SftConfig, ["max_steps=2", "trainer.max_steps=3", "dataset=a"], {"data.dataset": "a"})
    assert (loaded.config.trainer["max_steps"], loaded.config.data.dataset) == (3, "a")


def test_a_home_folder_is_found_for_every_path_of_a_config_and_recorded_as_it_was(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/home/of-nobody")
    loaded = load_config(GSM8K, SftConfig, ["dataset=~/d", "decontaminate_against=~/e"], {})
    assert (loaded.config.data.dataset, loaded.config.data.decontaminate_against) == (
        "/home/of-nobody/d", "/home/of-nobody/e",
    )  # fmt: skip
    data = loaded.as_dict()["data"]
    assert (data["dataset"], data["decontaminate_against"]) == ("~/d", "~/e")
    assert "  dataset: ~/d  # override\n" in loaded.as_yaml()
    path = tmp_path / "experiment.yaml"
    written = (ROOT / "scripts/configs/toy.yaml").read_text().replace("outputs/toy", "~/toy")
    path.write_text(written.replace("sft_tulu:\n", "sft_tulu:\n  dataset: ~/toy/data/tulu\n"))
    experiment = load_config(path, ExperimentConfig).config
    paths = [experiment.output_root, experiment.base.models.baseline, experiment.sft_tulu.dataset]
    assert paths == ["/home/of-nobody/toy", "/home/of-nobody/toy/hf_baseline", "/home/of-nobody/toy/data/tulu"]
    with pytest.raises(InputError, match=f"config {GSM8K}: ~nobody-here/d: there is no such home folder"):
        load_config(GSM8K, SftConfig, ["dataset=~nobody-here/d"])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("learning_rat=1e-4", "did you mean .*learning_rate"),
        ("data.max_lenght=5", "did you mean data.max_length"),
        ("learning_rate", "not key=value"),
        ("=5", "not key=value"),
        ("max_length=-1", "data.max_length is -1, expected at least 2"),
        ("max_length=long", "data.max_length is 'long', expected int"),
        ("train_samples=0", "data.train_samples is 0, expected at least 1 row"),
        ("val_samples=-1", "data.val_samples is -1"),
        ("loss_on=user", "data.loss_on is 'user', expected assistant or all"),
        ("global_batch_size=0", "global_batch_size is 0"),
        ("global_batch_size=2.5", "expected int"),
        ("global_batch_size=true", "expected int"),
        ("learning_rate=fast", "trainer.learning_rate is 'fast', expected float"),
        ("trainer.output_dir=x", "decided by --output-dir"),
        ("logging_steps=-5", "trainer.logging_steps is -5, expected a number of steps above 0, or a share"),
        ("eval_steps=0", "trainer.eval_steps is 0, expected a number of steps above 0, .*; or null for logging_steps"),
        ("save_steps=0", "trainer.save_steps is 0, expected .*; save_strategy=no saves nothing in between"),
        ("save_total_limit=0", "trainer.save_total_limit is 0, expected at least 1 checkpoint, or null to keep all"),
        ("gradient_accumulation_steps=2", "decided by global_batch_size"),
        ("data=5", "not a key"),
        ("max_length=[", "not a YAML value"),
        ("seed=010", "seed is '010', expected"),
        ("seed=1:30", "seed is '1:30', expected"),
        ("seed=0x10", "seed is '0x10', expected"),
    ],
)
def test_a_wrong_override_is_refused_with_its_remedy(override, message):
    with pytest.raises(InputError, match=message):
        load_config(TULU, SftConfig, [override])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: "", "is empty"),
        (lambda text: "- 1", "is a list"),
        (lambda text: "a: [", "not readable YAML"),
        (lambda text: "seed: 1\n" + text, "given twice: seed"),
        (lambda text: text.replace("seed:", "sead:"), r"unknown key sead \(did you mean seed\?\)"),
        (lambda text: text.replace("  max_length: 1024", ""), "missing key data.max_length"),
        (lambda text: text.replace("learning_rate:", "lerning_rate:"), "did you mean learning_rate"),
        (lambda text: text.replace("  num_train_epochs: 1", "  seed: 1"), "trainer.seed cannot be set"),
        (lambda text: text + "\ndata2: {}", "unknown key data2"),
    ],
)
def test_a_wrong_file_is_refused_with_its_remedy(tmp_path, change, message):
    path = tmp_path / "config.yaml"
    path.write_text(change(TULU.read_text()))
    with pytest.raises(InputError, match=message):
        load_config(path, SftConfig)


def test_a_missing_file_is_refused_not_replaced(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        load_config(tmp_path / "none.yaml", SftConfig)
