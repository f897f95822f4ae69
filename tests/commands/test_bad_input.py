"""What cannot be used is refused: one line that names it and what to do, and everything left as it was.

Each case is a command as a user types it, in a folder with models, data, recipes and results of earlier runs.
"""

import base64
import hashlib
import json
import os
import pickle
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
import yaml
from command_server import fast_uv
from conftest import read_jsonl, write_jsonl
from safetensors.torch import load_file, save_file

from domain_tokens import toy
from domain_tokens.facts import FACT_TOKENS

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted(
    str(path.relative_to(ROOT)) for room in ("sft", "eval", "sample", "scripts") for path in (ROOT / room).glob("*.py")
)
NOTES = (  # what a script does, said on stderr: sample_sft.py's notes, the bars of an evaluation and of slow reading
    r"Loading \S+ \.\.\.|baseline, 1\.0M parameters, on cpu; .*|asking \w+: .*|measuring bits: .*|"
    r"checking \S+: .*|tokenising \w+ rows: .*|comparing \S+: .*|"
)

TRAIN = (
    "sft/sft_gsm8k.py --model-path base --output-dir out --condition baseline --config gsm8k.yaml "
    "--dataset-path data/gsm8k max_steps=1 save_strategy=no eval_strategy=no val_samples=5"
)
CHATS = TRAIN.replace("sft_gsm8k.py", "sft_tulu.py").replace("data/gsm8k", "data/tulu")
ASK = "eval/run_gsm8k.py --model-path base --output-dir out --dataset-path data/gsm8k max_new_tokens=2"
PROBE = "eval/run_arithmetic_probes.py --model-path base --output-dir out max_new_tokens=2"
STEPS = "eval/run_gsm8k_steps.py --model-path base --output-dir out --dataset-path data/gsm8k max_new_tokens=2"
COMPARE = "scripts/compare_runs.py --baseline-dir eval_baseline --mul-tokens-dir eval_mul_tokens --output-path new.json"
SAMPLE = "sample/sample_sft.py --model-path base --question hi --max-new-tokens 2"
PREPARE = "scripts/prepare_base.py --source base --condition baseline --output-dir out"
TOY = "scripts/prepare_base.py --toy --condition baseline --output-dir out"
DATA = "scripts/make_toy_data.py --output-dir out --chats 5 --problems 5 --test-problems 5"
WORDS = "scripts/make_word_problems.py --output-dir out --rounds 1"
LOAD = "scripts/load_from_hf.py --models hf_baseline_10b"
LIST = "scripts/load_from_hf.py --list --registry models.yaml"
UPLOAD = "scripts/upload_to_hf.py --model-path tuned --repo-name alice/m"
EXPERIMENT = "scripts/run_experiment.py --config experiment.yaml"
MEASURE = "scripts/benchmark.py --repeats 1 --rows 32 --max-length 64 --train-data data/gsm8k"
CHECK = "scripts/check_contamination.py --train-data data/gsm8k --questions data/gsm8k"
REPORT, PROGRESS = "scripts/make_report.py .", "scripts/show_progress.py ."
COMMANDS = {shlex.split(command)[0]: command for command in (
    TRAIN, CHATS, ASK, PROBE, STEPS, COMPARE, SAMPLE, PREPARE, DATA, WORDS, LOAD, UPLOAD, EXPERIMENT, MEASURE, CHECK,
    REPORT, PROGRESS,
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


def emptied_model(folder: Path) -> None:
    shutil.rmtree(folder / "base")
    (folder / "base").mkdir()


def half_of_the_predictions(folder: Path) -> None:
    file = folder / "eval_mul_tokens/gsm8k_predictions.jsonl"
    write_jsonl(file, read_jsonl(file)[:9])


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

# By the names that the table calls them.
SPECIAL: dict[str, Callable[[Path], object]] = {
    "nan_weights": weights(lambda w: w["transformer.h.2.mlp.c_fc.weight"].fill_(torch.nan)),
    "missing_layer": weights(lambda w: w.pop("transformer.h.2.mlp.c_fc.weight")),
    "few_embedding_rows": weights(few_rows),
    "noisy_weights": put("base/model.safetensors", bytes(range(256)) * 99),
    "binary_rows": put("data/gsm8k/train.jsonl", os.urandom(5000)),
    "row_of_50_mb": put("data/gsm8k/train.jsonl", json.dumps(GOOD | {"answer": "7 " * 25_000_000 + "#### 7"})),
    "nested_row": put("data/gsm8k/train.jsonl", '{"question": ' + "[" * 50_000 + "]" * 50_000 + "}"),
    "two_bad_rows_of_a_hundred": rows("data/gsm8k/train.jsonl", *[GOOD] * 98, {}, {}),
    "looping_link": lambda folder: (folder / "loop").symlink_to("loop"),
    "emptied_model": emptied_model,
    "half_of_the_predictions": half_of_the_predictions,
    "without_facts": without_facts,
    "without_last_fact": without_last_fact,
    "pickled_only": pickled_only,
}

# --- flags -------------------------------------------------------------------------------------------------------


@cache
def help_of(script: str) -> str:
    return subprocess.run([sys.executable, ROOT / script, "--help"], capture_output=True, text=True, check=True).stdout


def flags(script: str) -> list[str]:
    found = [flag for flag in re.findall(r"^  (--[a-z-]+)", help_of(script), re.MULTILINE) if flag != "--help"]
    assert found, script
    return found


def required(command: str) -> list[tuple[str, str]]:
    """Each required flag, and the command without it."""
    usage = help_of(shlex.split(command)[0]).partition("\n\n")[0]
    while usage != (usage := re.sub(r"\[[^][]*\]|\([^()]*\)", "", usage)):  # optional ones, and one of several
        pass
    return [(name, re.sub(rf" {name} [^-\s]\S*", "", command)) for name in re.findall(r"--[a-z-]+", usage)]


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

BASES = {
    "TRAIN": TRAIN, "CHATS": CHATS, "ASK": ASK, "PROBE": PROBE, "STEPS": STEPS, "COMPARE": COMPARE, "SAMPLE": SAMPLE,
    "PREPARE": PREPARE, "TOY": TOY, "DATA": DATA, "WORDS": WORDS, "LOAD": LOAD, "LIST": LIST, "UPLOAD": UPLOAD,
    "EXPERIMENT": EXPERIMENT, "MEASURE": MEASURE, "CHECK": CHECK, "REPORT": REPORT, "PROGRESS": PROGRESS,
}  # fmt: skip
TABLE_FILE = Path(__file__).with_name("bad_input.yaml")
TRAIN_FILE = "data/gsm8k/train.jsonl"


def operation(step: dict) -> Callable[[Path], object]:
    """One operation of the table, which its first key names."""
    kind, target = next(iter(step.items()))
    if kind == "put":
        content = base64.b64decode(step["base64"]) if "base64" in step else step["text"]
        return put(target, content * step.get("times", 1))
    if kind == "do":
        return SPECIAL[target]
    return {
        "edit": lambda: edit(target, step["old"], step["new"]),
        "json": lambda: set_json(target, **step["set"]),
        "rows": lambda: rows(target, *step["each"], times=step.get("times", 1)),
        "take": lambda: take(*target),
        "cut": lambda: cut(target, step["share"]),
        "index": lambda: index(*target),
    }[kind]()


def read_table() -> dict[str, Case]:
    table = {}
    for part, cases in yaml.safe_load(TABLE_FILE.read_text(encoding="utf-8")).items():
        for name, case in cases.items():
            assert case.keys() <= {"command", "says", "spoil", "code"}, name
            base, _, more = case["command"].partition(" ")
            command = f"{BASES.get(base, base)} {more}".strip()
            steps = [operation(step) for step in case.get("spoil", [])]
            table[f"{part}: {name}"] = Case(command, case["says"], both(*steps), case.get("code", 2))
    return table


TABLE = read_table()


def test_the_table_is_whole():
    assert len(TABLE) > 190
    assert all(case.says for case in TABLE.values())


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
