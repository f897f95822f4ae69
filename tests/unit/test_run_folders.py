"""What a run may write to, who may write there, and which files a command may replace."""

import json
import subprocess
import sys
import threading
import time

import pytest
from filelock import FileLock

from domain_tokens.runs import folders
from domain_tokens.runs.errors import InputError, RunError
from domain_tokens.runs.folders import begin_run, output_file, wait_for_lock

PAGE_SIGN = '<meta name="generator" content="scripts/make_report.py">'


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("README.md", "# token_usage"),
        ("model.safetensors", b"\x00\xff" * 50),
        ("train.jsonl", '{"question": "token_usage"}\n{"question": "b"}\n'),
        ("gsm8k.yaml", "token_usage: 1\n"),
        ("sft_results.json", '{"token_usage": 1}'),
        ("gsm8k_predictions.jsonl", '{"token_usage": 1}'),
        ("other.json", '{"train_loss": 1.5}'),
        ("list.json", '["token_usage"]'),
        ("text.json", '"token_usage"'),
        ("page.html", "<!doctype html>" + " " * 5000 + PAGE_SIGN),
        ("empty", ""),
    ],
)
def test_a_file_that_is_none_of_the_commands_own_is_not_replaced(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    for sign in ("token_usage", PAGE_SIGN):
        with pytest.raises(InputError, match=f"output {path} .*; choose another --output-path"):
            output_file(str(path), sign, overwrite=False)
    if "_" not in name:  # a run's results are not for --overwrite either
        assert output_file(str(path), "token_usage", overwrite=True) == path


def test_a_command_replaces_its_own_files(tmp_path):
    (tmp_path / "c.json").write_text(json.dumps({"seed": 42, "token_usage": {}}))
    (tmp_path / "r.html").write_text(f"<!doctype html>\n<head>\n{PAGE_SIGN}\n")
    assert output_file(str(tmp_path / "c.json"), "token_usage", overwrite=False).is_file()
    assert output_file(str(tmp_path / "r.html"), PAGE_SIGN, overwrite=False).is_file()
    assert output_file(str(tmp_path / "new/c.json"), "token_usage", overwrite=False).parent.is_dir()


def test_an_output_file_is_written_through_its_link(tmp_path):
    (tmp_path / "real").mkdir()
    link = tmp_path / "c.json"
    link.symlink_to(tmp_path / "real/c.json")
    assert output_file(str(link), "token_usage", overwrite=False) == tmp_path / "real/c.json"


def test_a_link_to_nowhere_is_no_output_folder(tmp_path):
    (tmp_path / "scratch").symlink_to(tmp_path / "not_mounted")
    with pytest.raises(InputError, match="is a link to .*not_mounted, which is not there; choose another --output-dir"):
        folders.make_folder(tmp_path / "scratch", "--output-dir")


def test_what_earlier_versions_did_not_record_does_not_make_another_run(tmp_path):
    old = {"start_weights": "a", "config": {"seed": 1}}
    (tmp_path / "r.json").write_text(json.dumps(old))
    how = {"overwrite": False, "resume": True}
    assert folders.claim_folder(tmp_path, "r.json", old | {"start_architecture": "x"}, **how)[1]
    with pytest.raises(InputError, match="was made with config.epochs None, now it is 3"):
        folders.claim_folder(tmp_path, "r.json", old | {"config": {"seed": 1, "epochs": 3}}, **how)
    (tmp_path / "r.json").write_text(json.dumps(old | {"start_architecture": "y"}))
    with pytest.raises(InputError, match="was made with start_architecture 'y', now it is 'x'"):
        folders.claim_folder(tmp_path, "r.json", old | {"start_architecture": "x"}, **how)


def test_a_run_that_another_process_has_begun_is_not_begun_again(tmp_path):
    code = (
        "import time; from pathlib import Path; from domain_tokens.runs.folders import begin_run\n"
        f"begin_run(Path({str(tmp_path / 'mark.json')!r}), {{'by': 'other'}})\n"
        "print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(RunError, match="is being written by another process; wait for it, or end it"):
            begin_run(tmp_path / "mark.json", {"by": "me"})
        assert json.loads((tmp_path / "mark.json").read_text()) == {"by": "other"}
        other.kill()
    begin_run(tmp_path / "mark.json", {"by": "me"})
    assert json.loads((tmp_path / "mark.json").read_text()) == {"by": "me"}


def test_waiting_for_a_lock_is_said_after_a_while(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(folders, "_SILENCE", 0.1)
    with wait_for_lock(str(tmp_path / "lock"), "prepares the same rows"):
        pass
    assert capsys.readouterr().out == ""
    is_held, is_left = threading.Event(), threading.Event()

    def hold():
        with FileLock(tmp_path / "lock"):
            is_held.set()
            time.sleep(1)
            is_left.set()

    threading.Thread(target=hold).start()
    assert is_held.wait(10)
    with wait_for_lock(str(tmp_path / "lock"), "prepares the same rows"):
        assert is_left.is_set()
    assert capsys.readouterr().out == "waiting for another process that prepares the same rows; end it if it hangs\n"
