"""The table of what is complete, running and pending, and its block in a note."""

import json
import re

import pytest
import show_progress

from domain_tokens.runs.errors import InputError

TRAINED = {"train_loss": 1.6, "steps": 6250, "total_train_samples": 200_000, "train_runtime": 9000.0}
EVALUATED = {"condition": "baseline", "eval_version": 2, "config": {}}


def make(root, name, **files):
    folder = root / name
    folder.mkdir(parents=True)
    for path, content in files.items():
        target = folder / path.replace("__", "/").replace("_json", ".json")
        target.parent.mkdir(exist_ok=True)
        target.write_text(json.dumps(content))
    return folder


@pytest.fixture
def experiment(tmp_path):
    root = tmp_path / "outputs"
    make(root, "sft_tulu_baseline", tulu_sft_results_json=TRAINED | {"eval_loss": 1.57281})
    make(root, "sft_gsm8k_baseline", sft_results_json=TRAINED | {"eval_loss": None, "train_loss": 0.51234})
    state = {"global_step": 500, "max_steps": 6250}
    make(root, "sft_tulu_mul_tokens", unfinished_run_json={}).joinpath("checkpoint-500").mkdir()
    (root / "sft_tulu_mul_tokens/checkpoint-500/trainer_state.json").write_text(json.dumps(state))
    make(root, "sft_gsm8k_mul_tokens", unfinished_run_json={})
    metrics = {"accuracy": 0.0205, "correct": 27, "total": 1319, "mul_token_count": 0}
    folder = make(root, "eval_baseline", gsm8k_results_json=EVALUATED | {"metrics": metrics})
    (folder / "arithmetic_unfinished.json").write_text("{}")
    (folder / "arithmetic_unfinished-0.jsonl").write_text("{}\n{}\n{")
    (folder / "arithmetic_unfinished-1.jsonl").write_text("{}\n")
    return root


EXPECTED = """\
                    baseline                         mul_tokens
--------------------------------------------------------------------------------------
stage 1: Tulu       complete: validation loss 1.5728  running, step 500 of 6250 saved
stage 2: GSM8K      complete: training loss 0.5123    running, no checkpoint yet
evaluation: GSM8K   complete: 2.1% of 1319            pending
evaluation: probes  running, 3 answered               pending
"""


def test_it_shows_what_is_complete_running_and_pending(experiment, capsys):
    show_progress.main([str(experiment)])
    shown = [line.split("  ") for line in capsys.readouterr().out.splitlines()]
    expected = [line.split("  ") for line in EXPECTED.splitlines()]
    assert [[cell.strip() for cell in line if cell.strip("- ")] for line in shown] == [
        [cell.strip() for cell in line if cell.strip("- ")] for line in expected
    ]


def test_each_seed_has_rows_of_its_own(experiment, tmp_path, capsys):
    experiment.rename(tmp_path / "seed_10")
    (tmp_path / "seed_2").mkdir()
    show_progress.main([str(tmp_path)])
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].startswith("seed 2, stage 1: Tulu")
    assert lines[6].startswith("seed 10, stage 1: Tulu")
    assert len(lines) == 2 + 8


def test_a_note_gets_the_table_and_keeps_the_rest(experiment, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    note = tmp_path / "note.md"
    note.write_text("# A night\n\nIt rained.\n")
    show_progress.main(["outputs", "--write", "note.md"])
    first = note.read_text()
    assert first.startswith(
        "# A night\n\nIt rained.\n\n<!-- progress of outputs -->\n|  | baseline | mul_tokens |\n|---|"
    )
    note.write_text(first + "\nThe end.\n")
    results = TRAINED | {"eval_loss": 0.5, "train_loss": 0.6}
    (experiment / "sft_gsm8k_mul_tokens/sft_results.json").write_text(json.dumps(results))
    (experiment / "sft_gsm8k_mul_tokens/unfinished_run.json").unlink()
    show_progress.main(["outputs", "--write", "note.md"])
    assert note.read_text() == first.replace("running, no checkpoint yet", "complete: validation loss 0.5000") + (
        "\nThe end.\n"
    )


def test_an_evaluation_or_stage_that_was_begun_again_is_running(experiment, capsys):
    (experiment / "eval_baseline/gsm8k_unfinished.json").write_text("{}")
    (experiment / "sft_gsm8k_baseline/unfinished_run.json").write_text("{}")
    show_progress.main([str(experiment)])
    shown = dict(re.split(r"\s{2,}", line)[:2] for line in capsys.readouterr().out.splitlines()[2:])
    assert shown["evaluation: GSM8K"] == "running, 0 answered"
    assert shown["stage 2: GSM8K"] == "running, no checkpoint yet"


def test_a_note_keeps_its_link_its_line_breaks_and_its_mode(experiment, tmp_path):
    note, link = tmp_path / "real.md", tmp_path / "link.md"
    note.write_bytes(b"# A night\r\n")
    note.chmod(0o600)
    link.symlink_to(note)
    show_progress.main([str(experiment), "--write", str(link)])
    assert link.is_symlink()
    assert note.stat().st_mode & 0o777 == 0o600
    assert note.read_bytes().startswith(b"# A night\r\n\r\n<!-- progress of ")
    assert note.read_bytes().count(b"\n") == note.read_bytes().count(b"\r\n")


def test_the_end_of_another_block_is_not_taken_for_a_blocks_own(experiment, tmp_path):
    note = tmp_path / "note.md"
    text = f"<!-- progress of {experiment} -->\nmine\n<!-- progress of other -->\n<!-- end of progress -->\n"
    note.write_text(text)
    with pytest.raises(InputError, match="never ends"):
        show_progress.main([str(experiment), "--write", str(note)])
    assert note.read_text() == text


def test_a_folder_that_only_looks_like_a_seeds_is_none(experiment, capsys):
    (experiment / "seed_007").mkdir()
    show_progress.main([str(experiment)])
    assert "seed" not in capsys.readouterr().out


@pytest.mark.parametrize("step", [None, "text", float("nan"), 10**400, []])
def test_a_checkpoint_without_a_proper_step_is_one_line(experiment, step):
    state = experiment / "sft_tulu_mul_tokens/checkpoint-500/trainer_state.json"
    state.write_text(json.dumps({"global_step": step, "max_steps": 6250}))
    with pytest.raises(InputError, match=r"trainer_state.json: global_step is .*, expected"):
        show_progress.main([str(experiment)])


def test_a_block_without_end_and_a_missing_note_are_refused(experiment, tmp_path):
    with pytest.raises(InputError, match="is no file; write the note first"):
        show_progress.main([str(experiment), "--write", str(tmp_path / "no.md")])
    note = tmp_path / "note.md"
    note.write_text(f"<!-- progress of {experiment} -->\nprecious")
    with pytest.raises(InputError, match="never ends"):
        show_progress.main([str(experiment), "--write", str(note)])
    assert note.read_text().endswith("precious")
    with pytest.raises(InputError, match="is no folder"):
        show_progress.main([str(tmp_path / "no")])


def test_it_shows_the_conditions_and_evaluations_that_are_there(tmp_path, capsys):
    train = {"train_loss": 1.5, "eval_loss": 1.25, "train_runtime": 9, "steps": 3, "total_train_samples": 9}
    make(tmp_path, "sft_gsm8k_baseline", sft_results_json=train)
    show_progress.main([str(tmp_path)])
    printed = capsys.readouterr().out
    assert "complete: validation loss 1.2500" in printed
    assert "stage 1" not in printed, "stage 2 began without it"
    steps = {"step_accuracy": 0.125, "correct": 5, "total": 40}
    make(tmp_path, "eval_baseline", steps_results_json=EVALUATED | {"metrics": steps})
    show_progress.main([str(tmp_path)])
    header, _, *rows = capsys.readouterr().out.splitlines()
    assert header.split() == ["baseline"]
    assert rows[-1].split("  ")[-1].strip() == "complete: 12.5% of 40"
    lineage = [{"stage": "prepare_base", "source": "toy"}]
    make(tmp_path, "sft_tulu_mul_tokens", domain_tokens_json={"condition": "mul_tokens", "lineage": lineage})
    show_progress.main([str(tmp_path)])
    assert capsys.readouterr().out.splitlines()[0].split("  ")[0] == "(generated data)"
