"""What cannot be used is refused: one line that names it and what to do, and everything left as it was.

Each case is a command as a user types it, in a folder with models, data, recipes and results of earlier runs.
"""

import gzip
import hashlib
import json
import os
import pickle
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from command_server import fast_uv
from conftest import read_jsonl, write_jsonl
from safetensors.torch import load_file, save_file

from domain_tokens import toy
from domain_tokens.facts import FACT_TOKENS

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted(
    str(path.relative_to(ROOT)) for room in ("sft", "eval", "sample", "scripts") for path in (ROOT / room).glob("*.py")
)
NOTES = (  # what a script does, said on stderr: sample_sft.py's notes, the bar of an evaluation
    r"Loading \S+ \.\.\.|baseline, 1\.0M parameters, on cpu; .*|asking \w+ questions: .*|"
)

TRAIN = (
    "sft/sft_gsm8k.py --model-path base --output-dir out --condition baseline --config gsm8k.yaml "
    "--dataset-path data/gsm8k max_steps=1 save_strategy=no eval_strategy=no val_samples=5"
)
CHATS = TRAIN.replace("sft_gsm8k.py", "sft_tulu.py").replace("data/gsm8k", "data/tulu")
ASK = "eval/run_gsm8k.py --model-path base --output-dir out --dataset-path data/gsm8k max_new_tokens=2"
PROBE = "eval/run_arithmetic_probes.py --model-path base --output-dir out max_new_tokens=2"
COMPARE = "scripts/compare_runs.py --baseline-dir eval_baseline --mul-tokens-dir eval_mul_tokens --output-path new.json"
SAMPLE = "sample/sample_sft.py --model-path base --question hi --max-new-tokens 2"
PREPARE = "scripts/prepare_base.py --source base --condition baseline --output-dir out"
TOY = "scripts/prepare_base.py --toy --condition baseline --output-dir out"
DATA = "scripts/make_toy_data.py --output-dir out --chats 5 --problems 5 --test-problems 5"
LOAD = "scripts/load_from_hf.py --models hf_baseline_10b"
LIST = "scripts/load_from_hf.py --list --registry models.yaml"
UPLOAD = "scripts/upload_to_hf.py --model-path tuned --repo-name alice/m"
EXPERIMENT = "scripts/run_experiment.py --config experiment.yaml"
MEASURE = "scripts/benchmark.py --repeats 1 --rows 32 --max-length 64 --train-data data/gsm8k"
CHECK = "scripts/check_contamination.py --train-data data/gsm8k --questions data/gsm8k"
REPORT, PROGRESS = "scripts/make_report.py .", "scripts/show_progress.py ."
COMMANDS = {shlex.split(command)[0]: command for command in (
    TRAIN, CHATS, ASK, PROBE, COMPARE, SAMPLE, PREPARE, DATA, LOAD, UPLOAD, EXPERIMENT, MEASURE, CHECK, REPORT,
    PROGRESS,
)}  # fmt: skip


class Case(NamedTuple):
    command: str
    says: list[str]  # parts of the one line: what is wrong, and what to do
    spoil: Callable[[Path], object] = lambda folder: None  # done to the folder before the command
    code: int = 2


# --- the folder a command is given in, and what of it may have changed -------------------------------------------


@pytest.fixture(scope="module")
def uv(tmp_path_factory) -> Iterator[tuple[Path, dict[str, str]]]:
    """Runs scripts, without a Hub; on one core, because a second one is no help with models of this size."""
    outside = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    own = {"HF_HOME": str(tmp_path_factory.mktemp("hf")), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    with fast_uv(tmp_path_factory.mktemp("uv"), outside | own) as uv:
        yield uv, outside | own


@pytest.fixture(scope="module")
def world(uv, toy_base, toy_data, tmp_path_factory) -> Path:
    """Start models `base` and `facts`, a trained one `tuned`, evaluations, data, recipes."""
    world = tmp_path_factory.mktemp("world") / "world"
    shutil.copytree(toy_base["baseline"], world / "base")
    shutil.copytree(toy_base["mul_tokens"], world / "facts")
    shutil.copytree(toy_data, world / "data")
    for name in ("sft/configs/gsm8k.yaml", "scripts/configs/models.yaml"):
        shutil.copy(ROOT / name, world)
    shutil.copy(ROOT / "scripts/configs/toy.yaml", world / "experiment.yaml")
    for command in (
        *(f"{command} --output-dir eval_baseline" for command in (ASK, PROBE)),
        *(f"{command} --model-path facts --output-dir eval_mul_tokens" for command in (ASK, PROBE)),
        f"{TRAIN} --output-dir tuned",
    ):
        assert given(uv, world, command).returncode == 0
    return world


@pytest.fixture
def folder(world, tmp_path) -> Iterator[Path]:
    """A copy of the world, to be spoilt."""
    yield Path(shutil.copytree(world, tmp_path / "case"))
    shutil.rmtree(tmp_path / "case")


def state(folder: Path) -> dict[str, tuple]:
    """Every file with its content and time, every folder."""
    return {
        str(path.relative_to(folder)): (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns)
        if path.is_file() else ()
        for path in folder.rglob("*")
    }  # fmt: skip


def given(uv, folder: Path, command: str, **more: str) -> subprocess.CompletedProcess:
    script, *arguments = shlex.split(command)
    uv, environment = uv
    return subprocess.run(
        [uv, "run", "python", ROOT / script, *arguments], cwd=folder, env=environment | more,
        capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip


def check(shown: subprocess.CompletedProcess, case: Case) -> None:
    *notes, error = shown.stderr.splitlines() or [""]
    assert shown.returncode == case.code, shown
    assert re.fullmatch(r"error: .*\S", error), shown.stderr
    assert re.search(r"; |, expected |did you mean |give ", error), error
    assert all(re.fullmatch(NOTES, note) for note in notes), shown.stderr
    for part in case.says:
        assert part in error, shown.stderr
    assert not re.search(r"Traceback|Warning|warn\(|trust_remote_code", shown.stdout + shown.stderr), shown


def refused(uv, folder: Path, case: Case) -> None:
    case.spoil(folder)
    before = state(folder)
    check(given(uv, folder, case.command), case)
    assert state(folder) == before


# --- ways to spoil it --------------------------------------------------------------------------------------------


def put(name: str, content: str | bytes) -> Callable[[Path], object]:
    def spoil(folder):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())

    return spoil


def edit(name: str, old: str, new: str) -> Callable[[Path], object]:
    def spoil(folder):
        text = (folder / name).read_text(encoding="utf-8")
        assert old in text
        (folder / name).write_text(text.replace(old, new), encoding="utf-8")

    return spoil


def set_json(name: str, **values) -> Callable[[Path], object]:
    """Change keys of a JSON object; None takes a key away."""

    def spoil(folder):
        old = json.loads((folder / name).read_text()) | values
        (folder / name).write_text(json.dumps({key: value for key, value in old.items() if value is not None}))

    return spoil


def take(*names: str) -> Callable[[Path], object]:
    def spoil(folder):
        for name in names:
            path = folder / name
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    return spoil


def cut(name: str, share: float) -> Callable[[Path], object]:
    def spoil(folder):
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: int(share * len(content))])

    return spoil


def both(*spoils: Callable[[Path], object]) -> Callable[[Path], object]:
    return lambda folder: [spoil(folder) for spoil in spoils]


def weights(change: Callable[[dict], object], name: str = "base") -> Callable[[Path], object]:
    def spoil(folder):
        tensors = load_file(folder / name / "model.safetensors")
        change(tensors)
        save_file(tensors, folder / name / "model.safetensors", {"format": "pt"})

    return spoil


def rows(name: str, *rows: object, times: int = 1) -> Callable[[Path], object]:
    return lambda folder: write_jsonl(folder / name, list(rows) * times)


class Payload:
    """Pickled, a program that runs when it is unpickled."""

    def __reduce__(self):
        return os.system, ("touch ran",)


def few_rows(tensors: dict) -> None:
    tensors["transformer.wte.weight"] = tensors["transformer.wte.weight"][:740].clone()


def without_facts(folder: Path) -> None:
    toy.tokenizer().save_pretrained(folder / "base")


def without_last_fact(folder: Path) -> None:
    tokenizer = json.loads((folder / "base/tokenizer.json").read_text())
    tokenizer["added_tokens"] = [token for token in tokenizer["added_tokens"] if token["content"] != FACT_TOKENS[-1]]
    (folder / "base/tokenizer.json").write_text(json.dumps(tokenizer))


def pickled_only(folder: Path) -> None:
    (folder / "base/model.safetensors").unlink()
    (folder / "base/pytorch_model.bin").write_bytes(pickle.dumps(Payload()))


def own_code(name: str) -> Callable[[Path], object]:
    """A model that can only be opened by running the Python file that lies in its folder."""
    wanted = {
        "config.json": {
            "model_type": "homemade",
            "auto_map": {"AutoConfig": "code.Config", "AutoModelForCausalLM": "code.Model"},
        },
        "tokenizer_config.json": {
            "tokenizer_class": "HomemadeTokenizer",
            "auto_map": {"AutoTokenizer": ["code.HomemadeTokenizer", "code.HomemadeTokenizer"]},
        },
    }
    code = "open('ran', 'w')\n"
    return both(set_json(f"base/{name}", **wanted[name]), put("base/code.py", code), put("code.py", code))


def index(*shards: str) -> Callable[[Path], object]:
    """Weights in several files, as the index tells it."""

    def spoil(folder):
        names = sorted(load_file(folder / "base/model.safetensors"))
        (folder / "base/model.safetensors").rename(folder / "base/model-00001-of-00002.safetensors")
        (folder / "base/pytorch_model.bin").write_bytes(pickle.dumps(Payload()))
        shard_of = {name: shards[i % len(shards)] for i, name in enumerate(names)}
        text = json.dumps({"metadata": {}, "weight_map": shard_of})
        (folder / "base/model.safetensors.index.json").write_text(text)

    return spoil


GOOD = {"question": "What is 6 times 9?", "answer": "#### 54"}
CHAT = [{"role": "user", "content": "Hi."}, {"role": "assistant", "content": "Hello."}]

# --- flags -------------------------------------------------------------------------------------------------------


def flags(script: str) -> list[str]:
    return re.findall(r'add_argument\(\s*"(--[a-z-]+)"', (ROOT / script).read_text(encoding="utf-8"))


def required(command: str) -> list[tuple[str, str]]:
    """Each required flag, and the command without it."""
    script = shlex.split(command)[0]
    source = (ROOT / script).read_text(encoding="utf-8")
    names = re.findall(r'add_argument\(\s*"(--[a-z-]+)",[^)]*required=True', source)
    return [(name, re.sub(rf" {name} [^-\s]\S*", "", command)) for name in names]


@pytest.mark.parametrize(
    ("flag", "command"),
    [
        *(missing for command in COMMANDS.values() for missing in required(command)),
        ("--question", "sample/sample_sft.py --model-path base"),
        ("--models", "scripts/load_from_hf.py"),
        ("--source", "scripts/prepare_base.py --condition baseline --output-dir out"),
        ("--train-data", "scripts/benchmark.py"),
        ("--questions", "scripts/benchmark.py --model-path base"),
    ],
)
def test_a_flag_that_is_missing_is_named(uv, tmp_path, flag, command):
    assert command not in COMMANDS.values()
    refused(uv, tmp_path, Case(command, [flag]))


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_flag_that_is_misspelt_is_named_with_the_right_one(uv, tmp_path, script):
    for flag in flags(script):
        wrong = flag[:3] + flag[2:]  # the first letter twice
        says = [f"unrecognized arguments: {wrong} (did you mean {flag}?)", "--help"]
        refused(uv, tmp_path, Case(f"{COMMANDS[script]} {wrong} 1", says))
    refused(uv, tmp_path, Case(f"{COMMANDS[script]} {wrong}=1", says))


# --- the table ---------------------------------------------------------------------------------------------------

BOMB = "a: &a [x, x]\n" + "".join(f"{b}: &{b} [{', '.join([f'*{a}'] * 6)}]\n" for a, b in pairwise("abcdefghijkl"))

RECIPES = {
    "missing": Case(f"{TRAIN} --config none.yaml", ["config none.yaml does not exist", "expected a YAML file"]),
    "no name": Case(f"{TRAIN} --config ''", ["--config is empty", "--help"]),
    "a folder": Case(f"{TRAIN} --config data", ["config data is a folder", "expected a YAML file"]),
    "empty": Case(TRAIN, ["config gsm8k.yaml is empty", "expected a mapping"], put("gsm8k.yaml", "")),
    "a list": Case(TRAIN, ["config gsm8k.yaml is a list", "expected a mapping"], put("gsm8k.yaml", "- seed\n")),
    "not YAML": Case(TRAIN, ["config gsm8k.yaml is not readable YAML", "line 2"], put("gsm8k.yaml", "data: [\n")),
    "binary": Case(TRAIN, ["config gsm8k.yaml is not readable YAML"], put("gsm8k.yaml", bytes(range(256)))),
    "deeply nested": Case(TRAIN, ["config gsm8k.yaml is not readable YAML"], put("gsm8k.yaml", "[" * 100_000)),
    "an endless rate": Case(f"{TRAIN} learning_rate=.inf", ["learning_rate is inf", "expected a finite number"]),
    "no number of epochs": Case(f"{TRAIN} num_train_epochs=.nan", ["num_train_epochs is nan", "expected a finite"]),
    "more rows a step than there can be": Case(
        f"{TRAIN} global_batch_size={10**20}", [f"global_batch_size is {10**20}", "expected 1 to 1048576 rows"]
    ),
    "a metric that nobody measures": Case(
        f"{TRAIN} load_best_model_at_end=true metric_for_best_model=foo eval_strategy=steps eval_steps=1 "
        "save_strategy=steps save_steps=1",
        ["trainer: metric_for_best_model is foo, but only loss is measured", "change that setting"],
    ),
    "an unknown log level": Case(f"{TRAIN} log_level=bogus", ["trainer: ", "bogus", "change that setting"]),
    "a run that cannot go on": Case(
        f"{TRAIN} save_only_model=true", ["'save_only_model' is not a key", "decided by --resume", "leave it out"]
    ),
    "no date": Case(TRAIN, ["gsm8k.yaml is not readable YAML"], edit("gsm8k.yaml", "seed: 42", "seed: 2026-99-99")),
    "endless number": Case(
        TRAIN, ["gsm8k.yaml is not readable YAML"], edit("gsm8k.yaml", "seed: 42", "seed: " + "9" * 5000)
    ),
    "values that grow when written out": Case(TRAIN, ["alias *a: write its value out"], put("gsm8k.yaml", BOMB)),
    "a value that holds itself": Case(
        TRAIN, ["alias *a: write its value out"], edit("gsm8k.yaml", "trainer:", "trainer:\n  optim_args: &a [*a]")
    ),
    "a program in a tag": Case(
        TRAIN,
        ["gsm8k.yaml is not readable YAML"],
        put("gsm8k.yaml", 'seed: !!python/object/apply:os.system ["touch ran"]'),
    ),
    "a terminal's commands": Case(
        TRAIN, [r"unknown key \x1b[2J\u202eseed"], put("gsm8k.yaml", '"\\e[2J\\u202eseed": 1\n')
    ),
    "unknown key": Case(TRAIN, ["unknown key sead (did you mean seed?)"], edit("gsm8k.yaml", "seed:", "sead:")),
    "unknown inner key": Case(
        TRAIN, ["unknown key data.max_len (did you mean max_length?)"], edit("gsm8k.yaml", "max_length:", "max_len:")
    ),
    "missing key": Case(TRAIN, ["missing key data.max_length"], edit("gsm8k.yaml", "max_length: 512", "")),
    "key given twice": Case(TRAIN, ["key given twice: seed"], edit("gsm8k.yaml", "seed:", "seed: 1\nseed:")),
    "wrong type": Case(TRAIN, ["seed is 'many', expected int"], edit("gsm8k.yaml", "seed: 42", "seed: many")),
    "a block that is none": Case(
        TRAIN, ["data is 5, expected a block of keys"], put("gsm8k.yaml", "data: 5\nseed: 1\nglobal_batch_size: 1\n")
    ),
    "negative length": Case(
        TRAIN,
        ["data.max_length is -1, expected at least 2 tokens"],
        edit("gsm8k.yaml", "max_length: 512", "max_length: -1"),
    ),
    "zero rows": Case(
        TRAIN,
        ["data.train_samples is 0, expected at least 1 row"],
        edit("gsm8k.yaml", "train_samples: null", "train_samples: 0"),
    ),
    "no such trainer field": Case(
        TRAIN,
        ["trainer.lerning_rate is no field of TrainingArguments (did you mean learning_rate?)"],
        edit("gsm8k.yaml", "learning_rate:", "lerning_rate:"),
    ),
    "a trainer field that is the stage's": Case(
        TRAIN,
        ["trainer.output_dir cannot be set", "decided by --output-dir"],
        edit("gsm8k.yaml", "trainer:", "trainer:\n  output_dir: x"),
    ),
    "a trainer field of a wrong type": Case(
        TRAIN, ["trainer.learning_rate is 'fast', expected float"], edit("gsm8k.yaml", "2.0e-5", "fast")
    ),
    "a trainer value that cannot be": Case(f"{TRAIN} lr_scheduler_type=zigzag", ["trainer: ", "zigzag", "linear"]),
    "a trainer value found out when it is built": Case(f"{TRAIN} adam_beta1=2", ["trainer: ", "beta"]),
    "no steps": Case(f"{TRAIN} max_steps=-1 num_train_epochs=0", ["num_train_epochs is 0", "expected more than 0"]),
    "override of nothing": Case(f"{TRAIN} max_lenght=5", ["'max_lenght' is not a key", "did you mean max_length?"]),
    "override without value": Case(f"{TRAIN} max_length", ["'max_length' is not key=value", "expected something like"]),
    "override that is no YAML": Case(f"{TRAIN} max_length=[", ["'max_length=['", "not a YAML value"]),
    "override that is no date": Case(f"{TRAIN} seed=2026-99-99", ["'seed=2026-99-99'", "not a YAML value"]),
    "negative seed": Case(f"{TRAIN} --seed -1", ["seed is -1, expected 0 to 4294967295"]),
    "seed in words": Case(f"{TRAIN} --seed many", ["--seed: invalid int value: 'many'", "--help"]),
    "another script's recipe": Case(f"{ASK} --config gsm8k.yaml", ["config gsm8k.yaml: unknown key global_batch_size"]),
    "dtype that is none": Case(f"{ASK} dtype=float8", ["dtype is 'float8', expected float32 or bfloat16 or float16"]),
    "no room for replies": Case(f"{PROBE} max_new_tokens=0", ["max_new_tokens is 0, expected at least 1"]),
    "experiment without a key": Case(
        EXPERIMENT,
        ["experiment.yaml: missing key output_root"],
        edit("experiment.yaml", "output_root: outputs/toy", ""),
    ),
    "experiment of a wrong type": Case(
        EXPERIMENT,
        ["eval_gsm8k.overrides is 'seed=1', expected a list of texts"],
        edit("experiment.yaml", "  overrides:\n    - max_new_tokens=96", "  overrides: seed=1"),
    ),
}

CONDITION = {
    "mul_tokens from a baseline model": Case(
        f"{TRAIN} --condition mul_tokens", ["--condition mul_tokens contradicts base, which is a baseline model"]
    ),
    "baseline from a mul_tokens model": Case(
        f"{TRAIN} --model-path facts", ["--condition baseline contradicts facts, which is a mul_tokens model"]
    ),
    "facts in the baseline": Case(
        f"{TRAIN} --inject-mul-tokens", ["--inject-mul-tokens contradicts --condition baseline", "leave it out"]
    ),
    "neither": Case(f"{TRAIN} --condition none", ["--condition: invalid choice: 'none'", "'baseline', 'mul_tokens'"]),
    "evaluated as another": Case(f"{ASK} --condition mul_tokens", ["contradicts base, which is a baseline model"]),
    "asked as another": Case(f"{SAMPLE} --condition mul_tokens", ["contradicts base, which is a baseline model"]),
    "not said": Case(ASK, ["base does not say its condition", "give --condition"], take("base/domain_tokens.json")),
}

MODELS = {
    "weights that are no numbers": Case(
        PROBE,
        ["base holds weights that are no finite numbers", "train or fetch it again"],
        weights(lambda w: w["transformer.h.2.mlp.c_fc.weight"].fill_(torch.nan)),
    ),
    "missing": Case(f"{TRAIN} --model-path none", ["model folder none does not exist", "scripts/prepare_base.py"]),
    "no name": Case(f"{ASK} --model-path ''", ["--model-path is empty", "--help"]),
    "a name too long": Case(f"{ASK} --model-path {'a' * 300}", ["a" * 300, "too long", "give a shorter one"]),
    "a file": Case(f"{TRAIN} --model-path gsm8k.yaml", ["model folder gsm8k.yaml is a file"]),
    "an empty folder": Case(
        TRAIN, ["base holds no config.json"], lambda f: (shutil.rmtree(f / "base"), (f / "base").mkdir())
    ),
    "a cut config": Case(ASK, ["model folder base cannot be loaded", "config.json"], cut("base/config.json", 0.5)),
    "a config that is a list": Case(ASK, ["model folder base cannot be loaded"], put("base/config.json", "[]")),
    "a config of no known model": Case(
        ASK, ["model folder base cannot be loaded", "`mystery`"], set_json("base/config.json", model_type="mystery")
    ),
    "a config of other sizes": Case(
        ASK, ["base lacks weights, transformer.h.4.", "export it again"], set_json("base/config.json", n_layer=5)
    ),
    "no tokenizer": Case(
        ASK,
        ["base: the folder holds no tokenizer", "prepare_base.py --source base"],
        take("base/tokenizer.json", "base/tokenizer_config.json"),
    ),
    "a cut tokenizer": Case(ASK, ["model folder base cannot be loaded"], cut("base/tokenizer.json", 0.5)),
    "an empty tokenizer": Case(ASK, ["model folder base cannot be loaded"], put("base/tokenizer.json", "{}")),
    "a tokenizer without end-of-text": Case(
        ASK,
        ["base", "no end-of-text token", "prepare_base.py"],
        set_json("base/tokenizer_config.json", eos_token=None, bos_token=None, unk_token=None, pad_token=None),
    ),
    "cut weights": Case(TRAIN, ["model folder base cannot be loaded"], cut("base/model.safetensors", 0.5)),
    "weights cut in their header": Case(
        ASK, ["model folder base cannot be loaded"], cut("base/model.safetensors", 0.0001)
    ),
    "no weights in the file": Case(SAMPLE, ["model folder base cannot be loaded"], put("base/model.safetensors", b"")),
    "weights of noise": Case(
        SAMPLE, ["model folder base cannot be loaded"], put("base/model.safetensors", bytes(range(256)) * 99)
    ),
    "weights without a layer": Case(
        TRAIN,
        ["base lacks weights, transformer.h.2.mlp.c_fc.weight", "export it again"],
        weights(lambda w: w.pop("transformer.h.2.mlp.c_fc.weight")),
    ),
    "pickled weights": Case(
        ASK, ["base holds no model.safetensors", "pickled weights are never loaded", "prepare_base.py"], pickled_only
    ),
    "pickled weights asked": Case(SAMPLE, ["base holds no model.safetensors", "never loaded"], pickled_only),
    "pickled weights to start from": Case(PREPARE, ["source base", "model.safetensors"], pickled_only),
    "a pickled checkpoint": Case(
        PREPARE.replace("--source base", "--source x.pt"),
        ["x.pt is no checkpoint of plain tensors", "save it again"],
        put("x.pt", pickle.dumps(Payload())),
    ),
    "an index of pickled weights": Case(
        ASK, ["base", "model.safetensors.index.json", "pytorch_model.bin"], index("pytorch_model.bin")
    ),
    "an index of other folders' weights": Case(
        ASK,
        ["base", "model.safetensors.index.json", "../facts/model.safetensors"],
        index("../facts/model.safetensors", "model-00001-of-00002.safetensors"),
    ),
    "an index of a shard that is not there": Case(
        ASK,
        ["base", "model-00002-of-00002.safetensors"],
        index("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"),
    ),
    "a model of its own code": Case(ASK, ["model folder base cannot be loaded", "never run"], own_code("config.json")),
    "a source of its own code": Case(PREPARE, ["source base", "never run"], own_code("config.json")),
    "too few embedding rows": Case(
        TRAIN,
        ["740 embedding rows for 745 tokens", "prepare_base.py --source base"],
        both(weights(few_rows), set_json("base/config.json", vocab_size=740)),
    ),
    "facts in pieces": Case(TRAIN, ["<MUL_1_1_1> is split into", "prepare_base.py --source base"], without_facts),
    "one fact in pieces": Case(
        SAMPLE, ["<MUL_9_9_81> is split into", "prepare_base.py --source base"], without_last_fact
    ),
    "a cut record": Case(
        ASK, ["base/domain_tokens.json is not readable JSON", "make it again"], cut("base/domain_tokens.json", 0.5)
    ),
    "a deep record": Case(
        ASK, ["base/domain_tokens.json is not readable JSON"], put("base/domain_tokens.json", "[" * 100_000)
    ),
    "a record of no condition": Case(
        ASK,
        ['has condition "both"', "expected baseline or mul_tokens"],
        set_json("base/domain_tokens.json", condition="both"),
    ),
    "a record without lineage": Case(
        TRAIN, ["has no lineage", "make the model again"], set_json("base/domain_tokens.json", lineage=[])
    ),
    "a source that is not there": Case(
        PREPARE.replace("--source base", "--source ./none"), ["source ./none does not exist", "expected a Hub id"]
    ),
    "a source without weights": Case(PREPARE, ["source base"], take("base/model.safetensors")),
    "a source of cut weights": Case(
        PREPARE, ["source base has a broken weights file", "fetch it again"], cut("base/model.safetensors", 0.5)
    ),
    "a cut checkpoint": Case(
        PREPARE.replace("--source base", "--source x.pt"),
        ["x.pt is no checkpoint", "save it again"],
        put("x.pt", b"PK\x03\x04"),
    ),
    "a GGUF file of nothing": Case(
        PREPARE.replace("--source base", "--source x.gguf"), ["x.gguf", "cannot be read"], put("x.gguf", b"GGUF")
    ),
    "a tokenizer that is not there": Case(
        f"{PREPARE} --tokenizer ./none", ["tokenizer ./none does not exist", "expected a Hub id or a folder"]
    ),
    "an unfinished model to upload": Case(
        UPLOAD, ["tuned holds no sft_results.json", "--resume"], take("tuned/sft_results.json")
    ),
}

TRAIN_FILE, TEST_FILE, CHAT_FILE = "data/gsm8k/train.jsonl", "data/gsm8k/test.jsonl", "data/tulu/train.jsonl"
DATASETS = {
    "missing": Case(
        f"{TRAIN} --dataset-path ./none", ["dataset ./none does not exist", "expected a folder, a file or a Hub id"]
    ),
    "no name": Case(f"{TRAIN} --dataset-path ''", ["--dataset-path is empty", "--help"]),
    "of no known kind": Case(
        f"{TRAIN} --dataset-path gsm8k.yaml", ["gsm8k.yaml is of no known kind", "expected .jsonl"]
    ),
    "a compressed archive": Case(
        f"{TRAIN} --dataset-path x.tar.gz",
        ["x.tar.gz is of no known kind", "expected .jsonl"],
        put("x.tar.gz", gzip.compress(bytes(10240))),
    ),
    "an archive": Case(
        f"{TRAIN} --dataset-path x.zip", ["x.zip is of no known kind", "expected .jsonl"], put("x.zip", b"PK\x03\x04")
    ),
    "without the split": Case(f"{ASK} --dataset-path data/tulu", ["data/tulu has no test file", "expected test.jsonl"]),
    "on a Hub that is not asked": Case(
        f"{TRAIN} --dataset-path owner/name", ["dataset owner/name", "HF_HUB_OFFLINE is set", "unset it"], code=1
    ),
    "empty": Case(TRAIN, [TRAIN_FILE, "holds no rows"], put(TRAIN_FILE, "")),
    "blank lines": Case(TRAIN, [TRAIN_FILE, "holds no rows"], put(TRAIN_FILE, "\n \n")),
    "binary": Case(TRAIN, [TRAIN_FILE, "not UTF-8", "mend"], put(TRAIN_FILE, os.urandom(5000))),
    "zeros": Case(TRAIN, [TRAIN_FILE, "broken JSON", "mend"], put(TRAIN_FILE, bytes(5000))),
    "cut gzip": Case(
        f"{TRAIN} --dataset-path x.jsonl.gz",
        ["x.jsonl.gz cannot be read to its end", "fetch it again"],
        put("x.jsonl.gz", gzip.compress(json.dumps(GOOD).encode() * 1000)[:-9]),
    ),
    "no gzip": Case(
        f"{TRAIN} --dataset-path x.jsonl.gz",
        ["x.jsonl.gz cannot be read", "fetch it again"],
        put("x.jsonl.gz", json.dumps(GOOD)),
    ),
    "Latin-1": Case(
        TRAIN, [TRAIN_FILE, "not UTF-8", "line 1", "mend"], put(TRAIN_FILE, '{"question": "é"}\n'.encode("latin-1"))
    ),
    "UTF-16": Case(
        TRAIN, [TRAIN_FILE, "not UTF-8", "line 1", "mend"], put(TRAIN_FILE, json.dumps(GOOD).encode("utf-16"))
    ),
    "one line of 50 MB": Case(
        TRAIN,
        [TRAIN_FILE, "line 1", "mend"],
        put(TRAIN_FILE, json.dumps(GOOD | {"answer": "7 " * 25_000_000 + "#### 7"})),
    ),
    "one line of 50 MB that is no JSON": Case(
        TRAIN, [TRAIN_FILE, "broken JSON", "mend"], put(TRAIN_FILE, "7" * 50_000_000)
    ),
    "deeply nested": Case(TRAIN, [TRAIN_FILE, "broken JSON", "mend"], put(TRAIN_FILE, "[" * 100_000)),
    "nested in a row": Case(
        TRAIN, [TRAIN_FILE, "broken JSON"], put(TRAIN_FILE, '{"question": ' + "[" * 50_000 + "]" * 50_000 + "}")
    ),
    "a list over many lines": Case(
        TRAIN, [TRAIN_FILE, "one JSON object a line"], put(TRAIN_FILE, json.dumps([GOOD] * 9, indent=1))
    ),
    "no objects": Case(TRAIN, [TRAIN_FILE, "not a JSON object", "line 1"], rows(TRAIN_FILE, 5, times=9)),
    "without the columns": Case(
        TRAIN, [TRAIN_FILE, "no question", "line 1"], rows(TRAIN_FILE, {"prompt": "a"}, times=9)
    ),
    "without answers": Case(TRAIN, [TRAIN_FILE, "no answer", "line 1"], rows(TRAIN_FILE, {"question": "a"}, times=9)),
    "empty answers": Case(
        TRAIN, [TRAIN_FILE, "empty answer", "line 1"], rows(TRAIN_FILE, GOOD | {"answer": " "}, times=9)
    ),
    "answers without ####": Case(
        TRAIN, [TRAIN_FILE, "answer without ####", "line 1"], rows(TRAIN_FILE, GOOD | {"answer": "5"}, times=9)
    ),
    "two in a hundred": Case(
        TRAIN, [TRAIN_FILE, "2 of 100", "line 99", "mend"], rows(TRAIN_FILE, *[GOOD] * 98, {}, {})
    ),
    "chats for problems": Case(f"{TRAIN} --dataset-path data/tulu", [CHAT_FILE, "no question", "line 1"]),
    "problems for chats": Case(f"{CHATS} --dataset-path data/gsm8k", [TRAIN_FILE, "no messages", "line 1"]),
    "roles unknown": Case(
        CHATS,
        [CHAT_FILE, "unknown role", "line 1"],
        rows(CHAT_FILE, {"messages": [CHAT[0] | {"role": "tool"}]}, times=9),
    ),
    "only system messages": Case(
        CHATS, [CHAT_FILE, "no assistant message"], rows(CHAT_FILE, {"messages": [CHAT[0] | {"role": "system"}]})
    ),
    "content null": Case(
        CHATS, [CHAT_FILE, "content is not text"], rows(CHAT_FILE, {"messages": [CHAT[0], CHAT[1] | {"content": None}]})
    ),
    "content a list": Case(
        CHATS,
        [CHAT_FILE, "content is not text"],
        rows(CHAT_FILE, {"messages": [CHAT[0] | {"content": ["Hi."]}, CHAT[1]]}),
    ),
    "messages null": Case(CHATS, [CHAT_FILE, "no messages"], rows(CHAT_FILE, {"messages": None})),
    "messages that are text": Case(CHATS, [CHAT_FILE, "unknown role"], rows(CHAT_FILE, {"messages": ["Hi."]})),
    "fact tokens in the text": Case(
        CHATS,
        [CHAT_FILE, "reserved token <MUL_6_9_54>"],
        rows(CHAT_FILE, {"messages": [CHAT[0], CHAT[1] | {"content": "<MUL_6_9_54>"}]}),
    ),
    "no Parquet": Case(
        f"{TRAIN} --dataset-path x.parquet",
        ["x.parquet is not readable Parquet", "fetch it again"],
        put("x.parquet", b"PAR1" * 99),
    ),
    "one shard of three": Case(
        TRAIN,
        ["data/gsm8k holds train-00000-of-00003.parquet", "expected all of one set", "fetch the dataset again"],
        both(take(TRAIN_FILE), put("data/gsm8k/train-00000-of-00003.parquet", b"PAR1" * 99)),
    ),
    "too little room for a token": Case(f"{TRAIN} max_length=2", [TRAIN_FILE, "data.max_length 2", "raise it"]),
    "rows longer than the model": Case(
        f"{TRAIN} max_length=2048",
        ["a row has", "base has 1024 positions", "give max_length=1024 or less"],
        rows(TRAIN_FILE, GOOD | {"answer": "7 " * 600 + "#### 7"}, times=9),
    ),
    "references that are no numbers": Case(
        ASK,
        [f"{TEST_FILE} line 1: no number behind ####", "expected an answer like"],
        rows(TEST_FILE, GOOD | {"answer": "#### none"}),
    ),
    "questions without ####": Case(ASK, [TEST_FILE, "answer without ####"], rows(TEST_FILE, GOOD | {"answer": "54"})),
    "prompts longer than the context": Case(
        ASK,
        ["the longest prompt has", "the model has 1024 positions", "lower max_new_tokens"],
        rows(TEST_FILE, GOOD | {"question": "1 " * 600}),
    ),
    "replies longer than the context": Case(
        f"{PROBE} max_new_tokens=2000",
        ["max_new_tokens is 2000", "the model has 1024 positions", "lower max_new_tokens"],
    ),
    "a question longer than the context": Case(
        f"{SAMPLE} --question '{'1 ' * 600}'", ["the question has", "1024 positions", "make it shorter"]
    ),
    "a question that is no text": Case(f"{SAMPLE} --question ' '", ["--question is empty", "expected some text"]),
    "too few rows to measure": Case(
        f"{MEASURE} --rows 3200", ["data/gsm8k has 300 usable rows, expected 3200", "give --rows"]
    ),
    "nothing to measure": Case(f"{MEASURE} --train-data ./none", ["dataset ./none does not exist"]),
    "longer rows than the model measured": Case(f"{MEASURE} --max-length 2048", ["--max-length is 2048", "1024"]),
    "too many positions at a time": Case(
        f"{MEASURE} --micro-batch-tokens 0", ["--micro-batch-tokens is 0, expected at least 1"]
    ),
}

OUTPUTS = {
    **{
        f"{name} to a file": Case(
            f"{command} --output-dir gsm8k.yaml", ["output gsm8k.yaml is a file", "choose another --output-dir"]
        )
        for name, command in {
            "training": TRAIN,
            "an evaluation": ASK,
            "the probes": PROBE,
            "a start model": PREPARE,
            "toy data": DATA,
        }.items()
    },
    **{
        f"{name} below a file": Case(
            f"{command} --output-dir gsm8k.yaml/a/b",
            ["output gsm8k.yaml/a/b cannot be written", "choose another --output-dir"],
        )
        for name, command in {
            "training": TRAIN,
            "an evaluation": ASK,
            "the probes": PROBE,
            "a start model": TOY,
            "toy data": DATA,
        }.items()
    },
    "nowhere": Case(f"{TRAIN} --output-dir ''", ["--output-dir is empty", "--help"]),
    "a name too long": Case(f"{TRAIN} --output-dir {'a' * 300}", ["a" * 300, "too long", "give a shorter one"]),
    "a finished model": Case(
        f"{TRAIN} --output-dir tuned", ["tuned already holds sft_results.json", "--overwrite replaces it"]
    ),
    "a finished model of other settings": Case(
        f"{TRAIN} --output-dir tuned --resume --seed 7",
        ["tuned was made with config.seed 42, now it is 7", "--overwrite replaces it"],
    ),
    "a finished model without its weights": Case(
        f"{TRAIN} --output-dir tuned --resume",
        ["tuned does not hold the weights that sft_results.json speaks of", "--overwrite trains again"],
        take("tuned/model.safetensors"),
    ),
    "a finished evaluation without its replies": Case(
        f"{ASK} --output-dir eval_baseline --resume",
        ["gsm8k_predictions.jsonl does not hold the 20 answers of its results", "--overwrite asks again"],
        put("eval_baseline/gsm8k_predictions.jsonl", ""),
    ),
    "a loop of links": Case(
        f"{TRAIN} --output-dir loop",
        ["loop cannot be written", "choose another --output-dir"],
        lambda folder: (folder / "loop").symlink_to("loop"),
    ),
    "a note that is none": Case(
        f"{PROGRESS} --write eval_baseline/gsm8k_results.json", ["gsm8k_results.json is no note", "give a text file"]
    ),
    "another model": Case(f"{TRAIN} --output-dir facts", ["facts holds another model", "choose another folder"]),
    "the model to start from": Case(
        f"{TRAIN} --output-dir base --overwrite", ["base is the model to start from", "choose another folder"]
    ),
    "an interrupted run": Case(
        f"{TRAIN} --output-dir half",
        ["half holds an interrupted run", "--resume continues it"],
        put("half/unfinished_run.json", "{}"),
    ),
    "a torn run": Case(
        f"{TRAIN} --output-dir half --resume",
        ["half/unfinished_run.json is not readable JSON", "make it again"],
        put("half/unfinished_run.json", "{"),
    ),
    "kept and replaced": Case(
        f"{TRAIN} --resume --overwrite", ["--resume and --overwrite contradict each other", "give one of them"]
    ),
    "a finished evaluation": Case(
        f"{ASK} --output-dir eval_baseline",
        ["eval_baseline already holds gsm8k_results.json", "--overwrite replaces it"],
    ),
    "another evaluation": Case(
        f"{ASK} --output-dir eval_baseline --resume max_new_tokens=3",
        ["eval_baseline was made with config.max_new_tokens 2", "--overwrite replaces it"],
    ),
    "a comparison to a folder": Case(f"{COMPARE} --output-path data", ["output data is a folder", "expected a file"]),
    "a comparison below a file": Case(
        f"{COMPARE} --output-path gsm8k.yaml/new.json", ["output gsm8k.yaml is a file", "choose another --output-path"]
    ),
    "a comparison over an evaluation": Case(
        f"{COMPARE} --output-path eval_baseline/gsm8k_results.json",
        ["eval_baseline/gsm8k_results.json", "choose another --output-path"],
    ),
    "figures to a folder": Case(f"{MEASURE} --output-path data", ["output data is a folder", "expected a file"]),
    "figures below a file": Case(
        f"{MEASURE} --output-path gsm8k.yaml/x.json", ["output gsm8k.yaml is a file", "choose another --output-path"]
    ),
    "downloads below a file": Case(
        f"{LOAD} --output-root gsm8k.yaml/sub", ["--output-root gsm8k.yaml/sub cannot be made", "expected a folder"]
    ),
    "downloads to a file": Case(
        f"{LOAD} --output-root gsm8k.yaml", ["--output-root gsm8k.yaml cannot be made", "expected a folder"]
    ),
}

EVAL = "eval_mul_tokens"
COMPARISONS = {
    "missing": Case(f"{COMPARE} --baseline-dir none", ["none has no gsm8k_results.json", "run that evaluation"]),
    "without evaluations": Case(
        f"{COMPARE} --baseline-dir data --mul-tokens-dir base",
        ["data and base hold no complete evaluation", "run eval/run_gsm8k.py"],
    ),
    "the same condition": Case(
        f"{COMPARE} --mul-tokens-dir eval_baseline",
        ["eval_baseline holds a baseline evaluation, expected mul_tokens", "check the two folders"],
    ),
    "of other versions": Case(
        COMPARE, ["eval_version 2 against 0", "run the older"], set_json(f"{EVAL}/gsm8k_results.json", eval_version=0)
    ),
    "of other questions": Case(
        COMPARE,
        ["different questions (2 without a partner)", "ask both the same"],
        edit(f"{EVAL}/gsm8k_predictions.jsonl", '"gsm8k-00003"', '"gsm8k-00103"'),
    ),
    "of other settings": Case(
        COMPARE,
        ["max_new_tokens 2 against 3", "run one of"],
        edit(f"{EVAL}/gsm8k_results.json", '"max_new_tokens": 2', '"max_new_tokens": 3'),
    ),
    "half-written results": Case(
        COMPARE,
        [f"{EVAL}/gsm8k_results.json is not readable JSON", "make it again"],
        cut(f"{EVAL}/gsm8k_results.json", 0.5),
    ),
    "deep results": Case(
        COMPARE, [f"{EVAL}/gsm8k_results.json is not readable JSON"], put(f"{EVAL}/gsm8k_results.json", "[" * 100_000)
    ),
    "results that are a list": Case(
        COMPARE,
        [f"{EVAL}/gsm8k_results.json holds a list, expected an object"],
        put(f"{EVAL}/gsm8k_results.json", "[]"),
    ),
    "results of nothing": Case(COMPARE, [f"{EVAL} holds a None evaluation"], put(f"{EVAL}/gsm8k_results.json", "{}")),
    "half-written predictions": Case(
        COMPARE,
        [f"{EVAL}/gsm8k_predictions.jsonl is not readable JSONL", "make it again"],
        cut(f"{EVAL}/gsm8k_predictions.jsonl", 0.5),
    ),
    "deep predictions": Case(
        COMPARE,
        [f"{EVAL}/gsm8k_predictions.jsonl is not readable JSONL"],
        put(f"{EVAL}/gsm8k_predictions.jsonl", "[" * 100_000),
    ),
    "half of the predictions": Case(
        COMPARE,
        [f"{EVAL}/gsm8k_predictions.jsonl does not match its results (9 predictions)", "run the evaluation again"],
        lambda f: write_jsonl(
            f / f"{EVAL}/gsm8k_predictions.jsonl", read_jsonl(f / f"{EVAL}/gsm8k_predictions.jsonl")[:9]
        ),
    ),
    "no predictions": Case(
        COMPARE, [f"{EVAL}/gsm8k_predictions.jsonl is missing", "--overwrite"], take(f"{EVAL}/gsm8k_predictions.jsonl")
    ),
    "empty predictions": Case(
        COMPARE,
        [f"{EVAL}/gsm8k_predictions.jsonl does not match its results"],
        put(f"{EVAL}/gsm8k_predictions.jsonl", ""),
    ),
    "predictions of nothing": Case(
        COMPARE,
        [f"{EVAL}/arithmetic_predictions.jsonl line 1: no proper 'id'", "--overwrite"],
        rows(f"{EVAL}/arithmetic_predictions.jsonl", {}, times=281),
    ),
    "one evaluation of two": Case(
        COMPARE,
        [f"{EVAL} has no arithmetic_results.json", "run that evaluation too"],
        take(f"{EVAL}/arithmetic_results.json"),
    ),
    "a config that is a list": Case(
        COMPARE, [f"{EVAL}/gsm8k_results.json"], set_json(f"{EVAL}/gsm8k_results.json", config=[])
    ),
    "negative seed": Case(f"{COMPARE} --seed -1", ["--seed is -1, expected 0"]),
}

ENTRY = "{repo: r, stage: sft_tulu, condition: baseline}"
NAMES = {
    "no registry": Case(f"{LIST} --registry none.yaml", ["config none.yaml does not exist", "expected a YAML file"]),
    "a registry without owner": Case(LIST, ["models.yaml: missing key owner"], put("models.yaml", "models: {}")),
    "a registry without models": Case(
        LIST, ["models is {}, expected at least one model"], put("models.yaml", "owner: a\nmodels: {}")
    ),
    "a registry with a list": Case(
        LIST, ["models is ['x'], expected a block of names"], put("models.yaml", "owner: a\nmodels: [x]")
    ),
    "a registry with a number": Case(
        LIST, ["models.x is 3, expected a block of keys"], put("models.yaml", "owner: a\nmodels: {x: 3}")
    ),
    "a registry with a number's name": Case(
        LIST, ["the name 3, expected text"], put("models.yaml", f"owner: a\nmodels: {{3: {ENTRY}}}")
    ),
    "a registry of a strange stage": Case(
        LIST,
        ["stage is 's', expected pretrained or"],
        put("models.yaml", "owner: a\nmodels: {x: {repo: r, stage: s, condition: baseline}}"),
    ),
    "a registry without condition": Case(
        LIST,
        ["missing key models.x.condition"],
        put("models.yaml", "owner: a\nmodels: {x: {repo: r, stage: sft_tulu}}"),
    ),
    "a registry that leaves the folder": Case(
        LIST, ["models is '../x', expected a folder's name"], put("models.yaml", f"owner: a\nmodels: {{../x: {ENTRY}}}")
    ),
    "a registry with a group's name": Case(
        LIST,
        ["models is 'baseline', expected a folder's name"],
        put("models.yaml", f"owner: a\nmodels: {{baseline: {ENTRY}}}"),
    ),
    "a registry of other owners": Case(
        LIST,
        ["repo is 'a/r', expected a repository's name"],
        put("models.yaml", f"owner: a\nmodels: {{x: {ENTRY.replace('r,', 'a/r,')}}}"),
    ),
    "a torn registry": Case(LIST, ["models.yaml is not readable YAML"], put("models.yaml", "owner: [")),
    "an unknown model": Case(
        "scripts/load_from_hf.py --models hf_basline_10b",
        ["'hf_basline_10b' is no known model", "did you mean hf_baseline_10b?"],
    ),
    "an owner that is a path": Case(f"{LIST} --namespace ../me", ["owner is '../me', expected the name of a Hub user"]),
    "a revision that is none": Case(f"{LOAD} --revision ''", ["--revision is empty", "--help"]),
    **{
        f"a repository called {name}": Case(
            f"scripts/upload_to_hf.py --model-path tuned --repo-name '{name}'",
            [f"repository {name!r}", "expected OWNER/NAME"],
        )
        for name in ("m", "alice/m/x", "alice/--m", "alice/m m", "https://hub/alice/m", "alice/m.git", "../m")
    },
    "a repository for two": Case(f"{UPLOAD} alice/n", ["1 --model-path and 2 --repo-name", "in pairs"]),
    "a folder that is not there": Case(
        "scripts/upload_to_hf.py --model-path none --repo-name alice/m",
        ["model folder 'none' does not exist", "check --model-path"],
    ),
    "a strange licence": Case(f"{UPLOAD} --license 'MIT; x'", ["--license is 'MIT; x'", "such as mit"]),
}

NUMBERS = {
    "no replies": Case(f"{SAMPLE} --num-samples 0", ["--num-samples is 0, expected at least 1"]),
    "too cold": Case(f"{SAMPLE} --temperature 0", ["temperature is 0.0, expected 0.01 to 100", "greedy"]),
    "top-p of two": Case(f"{SAMPLE} --top-p 2", ["top-p is 2.0, expected"]),
    "a name that is no Unicode": Case(TRAIN + " --output-dir mod\udce8le", [r"'mod\udce8le' is not valid UTF-8 text"]),
    "no such device": Case(f"{SAMPLE} --device abacus", ["device abacus cannot be used", "expected cpu"]),
    "a negative seed to sample": Case(f"{SAMPLE} --seed -1", ["--seed is -1, expected 0 to 4294967295"]),
    "no chats": Case(f"{DATA} --chats 0", ["--chats is 0, expected at least 1"]),
    "a negative seed of a toy": Case(f"{TOY} --seed -1", ["--seed is -1, expected 0 to 4294967295"]),
    "an endless seed of a toy": Case(f"{TOY} --seed {'9' * 30}", [f"--seed is {'9' * 30}, expected 0 to 4294967295"]),
    "no repeats": Case(f"{MEASURE} --repeats 0", ["--repeats is 0, expected at least 1"]),
    "no rows to train on": Case(f"{TRAIN} --max-train-samples 0", ["data.train_samples is 0, expected at least 1 row"]),
    "no questions": Case(f"{ASK} --max-samples 0", ["max_samples is 0, expected at least 1"]),
    "no rows at a time": Case(
        f"{TRAIN} per_device_train_batch_size=0", ["per_device_train_batch_size is 0, expected at least 1 row"]
    ),
}

TABLE = {
    f"{part}: {name}": case
    for part, cases in {
        "recipe": RECIPES, "condition": CONDITION, "model": MODELS, "dataset": DATASETS, "output": OUTPUTS,
        "comparison": COMPARISONS, "names": NAMES, "numbers": NUMBERS,
    }.items()
    for name, case in cases.items()
}  # fmt: skip


@pytest.mark.parametrize("case", TABLE.values(), ids=TABLE)
def test_what_cannot_be_used_is_one_line_and_leaves_everything_as_it_was(uv, folder, case):
    refused(uv, folder, case)


# --- what is unusual and works ------------------------------------------------------------------------------------


@pytest.mark.parametrize("ends", [b"\n", b"\r\n"], ids=["Unix", "Windows"])
def test_a_byte_order_mark_and_windows_line_ends_change_nothing(uv, folder, ends):
    """Data and recipe as an editor on Windows saves them."""
    for name in (TRAIN_FILE, "gsm8k.yaml"):
        text = (folder / name).read_bytes()
        (folder / name).write_bytes(b"\xef\xbb\xbf" + text.replace(b"\n", ends))
    shown = given(uv, folder, TRAIN)
    assert (shown.returncode, shown.stderr) == (0, "")
    trained, plain = (json.loads((folder / name / "sft_results.json").read_text()) for name in ("out", "tuned"))
    assert trained["train_loss"] == plain["train_loss"]
    assert trained["rows"] == plain["rows"]


# --- a disk that is full or read-only -----------------------------------------------------------------------------


@pytest.fixture
def disk(folder) -> Iterator[Callable[[int], Path]]:
    """A small disk in the folder; calling it leaves so many kB free."""
    place = folder / "disk"
    place.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", place], capture_output=True, check=False)
    if made.returncode:
        pytest.skip("only root can make a small disk here; `unshare -rm uv run pytest` is root for long enough")

    def fill(free: int) -> Path:
        (place / "filler").write_bytes(bytes(1024 * (256 - free - used(place))))
        return place

    yield fill
    subprocess.run(["umount", place], check=True)


def used(place: Path) -> int:
    """kB, in whole pages."""
    return sum(4 * -(-path.stat().st_size // 4096) for path in place.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    "command",
    [
        f"{ASK} --output-dir disk/a/out",
        f"{PROBE} --output-dir disk/out",
        f"{PREPARE} --output-dir disk/out",
        f"{DATA} --output-dir disk/out --chats 99",
        f"{COMPARE} --output-path disk/out/new.json",
        f"{TRAIN} --output-dir disk/out",
    ],
    ids=lambda command: Path(shlex.split(command)[0]).stem,
)
def test_a_full_disk_is_one_line_and_nothing_is_half_written(uv, folder, disk, command):
    disk(0)
    before = state(folder)
    check(given(uv, folder, command), Case(command, ["disk/", "No space left on device", "make room"], code=1))
    assert state(folder) == before


def test_results_that_cannot_be_replaced_stay(uv, folder, disk):
    shutil.copytree(folder / "eval_baseline", folder / "disk/out")
    disk(0)
    before = state(folder)
    command = f"{ASK} --output-dir disk/out --overwrite max_new_tokens=3"
    check(given(uv, folder, command), Case(command, ["disk/out/gsm8k_", "make room"], code=1))
    assert state(folder) == before


@pytest.mark.parametrize("free", [8, 64], ids=["logs", "model"])
def test_a_stage_on_a_full_disk_is_incomplete_and_goes_on_when_there_is_room(uv, folder, disk, free):
    place = disk(free)
    command = f"{TRAIN} --output-dir disk/out"
    shown = given(uv, folder, command)
    check(shown, Case(command, ["disk/out", "cannot be written", "No space left", "make room, then --resume"], code=1))
    assert {path.name for path in (place / "out").iterdir()} == {"runs", "unfinished_run.json"}
    subprocess.run(["mount", "-o", "remount,size=9m", place], check=True)
    assert given(uv, folder, f"{command} --resume").returncode == 0
    assert (place / "out/sft_results.json").exists()


@pytest.mark.parametrize(
    "command",
    [f"{TRAIN} --output-dir disk/out", f"{ASK} --output-dir disk/a/out", f"{COMPARE} --output-path disk/x.json"],
)
def test_a_place_that_is_not_writable_is_refused(uv, folder, disk, command):
    subprocess.run(["mount", "-o", "remount,ro", disk(64)], check=True)
    refused(uv, folder, Case(command, ["output disk", "cannot be written", "choose another --output-"]))


# --- safe by construction -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [ASK, PREPARE], ids=["evaluation", "start model"])
def test_a_tokenizer_of_its_own_code_is_read_as_what_it_is_and_its_code_not_run(uv, folder, command):
    own_code("tokenizer_config.json")(folder)
    shown = given(uv, folder, command)
    assert shown.returncode == 0, shown
    assert not list(folder.rglob("ran"))


def test_pickles_beside_the_weights_are_not_opened(uv, folder):
    for name in ("pytorch_model.bin", "training_args.bin", "optimizer.pt", "model.pkl"):
        (folder / "base" / name).write_bytes(pickle.dumps(Payload()))
    assert given(uv, folder, TRAIN).returncode == 0
    assert not list(folder.rglob("ran"))


def test_a_checkpoint_with_a_program_in_it_is_not_continued(uv, folder):
    command = f"{TRAIN} save_strategy=steps save_steps=1"
    assert given(uv, folder, command).returncode == 0
    (folder / "out/sft_results.json").rename(folder / "out/unfinished_run.json")  # as if it had ended before that
    torch.save(Payload(), folder / "out/checkpoint-1/optimizer.pt")
    shown = given(uv, folder, f"{command} --resume")
    assert not list(folder.rglob("ran"))
    assert shown.returncode == 2
    assert "error: out: its last checkpoint holds more than plain tensors" in shown.stderr
    assert "--overwrite starts from scratch\n" in shown.stderr
    assert "Traceback" not in shown.stderr


def test_what_a_recipe_says_is_put_into_no_shell(uv, folder):
    text = (folder / "experiment.yaml").read_text()
    (folder / "experiment.yaml").write_text(
        text.replace("output_root: outputs/toy", "output_root: 'x; touch ran; $(touch ran)'")
    )
    shown = given(uv, folder, f"{EXPERIMENT} --dry-run")
    assert "--output-dir 'x; touch ran; $(touch ran)/sft_tulu_baseline'" in shown.stdout
    assert not list(folder.rglob("ran"))


def test_the_first_row_is_shown_without_what_a_terminal_obeys(uv, folder):
    rows(TRAIN_FILE, GOOD | {"question": "What is \x1b]0;title\x07\x1b[2J\u202e6 times 9?"}, times=9)(folder)
    shown = given(uv, folder, TRAIN)
    assert r"What is \x1b]0;title\x07\x1b[2J\u202e6 times 9?" in shown.stdout
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", shown.stdout)


def test_nobodys_home_or_token_is_written(uv, folder):
    """Every command that writes results, with whole paths, as a shell makes them of ~."""
    home, token = folder / "home/lovelace", "hf_AdasSecretToken"
    shutil.copytree(folder / "base", home / "source")
    shutil.copytree(folder / "data", home / "data")
    (folder / "gsm8k.yaml").rename(home / "gsm8k.yaml")
    before = set(folder.rglob("*"))
    (folder / "work").mkdir()
    for command in (
        "scripts/make_toy_data.py --output-dir ~/toy --chats 5 --problems 5 --test-problems 5",
        "scripts/prepare_base.py --source ~/source --condition baseline --output-dir ~/base",
        "scripts/prepare_base.py --source ~/source --condition mul_tokens --output-dir ~/facts",
        "sft/sft_tulu.py --model-path ~/base --output-dir ~/chats --condition baseline --config ~/gsm8k.yaml "
        "--dataset-path ~/data/tulu max_steps=1 save_strategy=no eval_strategy=no logging_steps=1 val_samples=5",
        "sft/sft_gsm8k.py --model-path ~/chats --output-dir ~/maths --condition baseline --config ~/gsm8k.yaml "
        "--dataset-path ~/data/gsm8k/train.jsonl max_steps=1 save_strategy=steps save_steps=1 val_samples=5",
        "eval/run_gsm8k.py --model-path ~/maths --output-dir ~/a --dataset-path ~/data/gsm8k max_new_tokens=2",
        "eval/run_gsm8k.py --model-path ~/facts --output-dir ~/b --dataset-path ~/data/gsm8k max_new_tokens=2",
        "scripts/compare_runs.py --baseline-dir ~/a --mul-tokens-dir ~/b --output-path ~/comparison.json",
        "scripts/benchmark.py --repeats 1 --rows 32 --max-length 64 --train-data ~/data/gsm8k "
        "--output-path ~/figures.json",
    ):
        command = command.replace("~", str(home))
        shown = given(uv, folder / "work", command, HOME=str(home), HF_TOKEN=token)
        assert shown.returncode == 0, shown
    written = [path for path in folder.rglob("*") if path.is_file() and path not in before]
    assert {"comparison.json", "figures.json", "trainer_state.json"} <= {path.name for path in written}
    assert any("tfevents" in path.name for path in written)
    for path in written:
        assert b"lovelace" not in path.read_bytes(), path
        assert token.encode() not in path.read_bytes(), path


def test_nothing_in_the_code_opens_a_pickle_or_a_shell():
    for path in [*(ROOT / "domain_tokens").glob("*.py"), *(ROOT / script for script in SCRIPTS)]:
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"import (?:pickle|marshal|shelve|zipfile|tarfile)\b|unpack_archive", text), path
        assert not re.search(r"shell=True|os\.(?:system|popen)|(?<![.\w])(?:eval|exec)\(", text), path
        assert set(re.findall(r"trust_remote_code\s*=\s*(\w+)", text)) <= {"False"}, path
        for call in re.findall(r"torch\.load\([^\n]*", text):
            assert "weights_only=True" in call, path
        for call in re.findall(r"\.from_pretrained\((?:[^()]|\([^()]*\))*\)", text):
            assert "trust_remote_code=False" in call, (path, call)
