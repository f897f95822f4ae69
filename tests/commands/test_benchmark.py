"""The benchmark in small: both sides of each measurement agree, and a disagreement is an error."""

import json

import benchmark
import pytest

from domain_tokens.runs.errors import InputError, RunError

TRAINING = ["--rows", "32", "--max-length", "64", "--repeats", "1"]


def test_training_is_measured_with_equal_losses(toy_data, tmp_path, capsys):
    output = tmp_path / "speed.json"
    benchmark.main(["--train-data", str(toy_data / "gsm8k"), *TRAINING, "--output-path", str(output)])
    training = json.loads(output.read_text())["training"]
    assert training["agree"] is True
    assert training["loss"]["ours"] == pytest.approx(training["loss"]["reference"], rel=1e-4)
    assert training["ratio"] == pytest.approx(
        training["tokens_per_second"]["ours"] / training["tokens_per_second"]["reference"]
    )
    assert 0 < training["fill"] < 1
    shown = capsys.readouterr().out
    assert f"ratio {training['ratio']:.2f}" in shown
    assert json.loads(shown.splitlines()[-2])["training"] == training


def test_evaluation_is_measured_with_equal_replies(toy_base, toy_data, capsys):
    asked = ["--model-path", str(toy_base["baseline"]), "--questions", str(toy_data / "gsm8k"), "--max-samples", "5"]
    benchmark.main([*asked, "--max-new-tokens", "8", "--repeats", "1"])
    assert "5 of 5 replies are the same" in capsys.readouterr().out


def test_sides_that_do_not_agree_are_an_error(toy_base, toy_data, monkeypatch):
    monkeypatch.setattr(benchmark, "reference_replies", lambda *args: ["something else"] * 5)
    asked = ["--model-path", str(toy_base["baseline"]), "--questions", str(toy_data / "gsm8k"), "--max-samples", "5"]
    with pytest.raises(RunError, match="the two sides of evaluation do not agree"):
        benchmark.main([*asked, "--max-new-tokens", "8", "--repeats", "1"])


def test_losses_that_do_not_agree_are_an_error(toy_data, monkeypatch):
    monkeypatch.setitem(benchmark.LOSS_TOLERANCE, "cpu", -1)
    with pytest.raises(RunError, match="the two sides of training do not agree"):
        benchmark.main(["--train-data", str(toy_data / "gsm8k"), *TRAINING, "--device", "cpu"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give --train-data to measure training"),
        (["--model-path", "x"], "--model-path and --questions belong together"),
        (["--train-data", "x", "--rows", "8"], "--rows is 8, expected at least 32"),
        (["--train-data", "x", "--repeats", "0"], "--repeats is 0, expected at least 1"),
    ],
)
def test_wrong_flags_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        benchmark.main(arguments)


def test_a_gpu_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(InputError, match="there is no GPU here"):
        benchmark.main(["--train-data", "x", "--device", "cuda"])


def test_operations_are_counted_as_they_are_needed(toy_base, toy_tokenizer):
    import numpy as np

    from domain_tokens.data.prepared import Prepared
    from domain_tokens.models.folder import open_model

    model = open_model(str(toy_base["baseline"]), None).model  # 4 layers, 128 wide, 746 tokens
    trained = np.array([False, False, True, False, True])
    rows = Prepared(np.zeros(5, np.int32), trained, np.array([0, 3, 5]), 0, 0, None)
    # a layer: attention 128 to 384 and 128 to 128, feed-forward 128 to 512 and back, biases, two norms
    layer = 128 * 384 + 384 + 128 * 128 + 128 + 2 * 128 * 512 + 512 + 128 + 4 * 128
    body, head, attention = 4 * layer + 2 * 128, 746 * 128, 4 * 128 * (3 * 3 + 2 * 2)
    assert benchmark.training_flops(model, rows) == 6 * (body * 5 + head * 2 + attention)
