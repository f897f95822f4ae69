"""A folder written here opens in transformers 4, and says and marks there what it does here."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

OLDER = "transformers==4.57.*"
TALK = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": [{"type": "text", "text": "What is 6 times 9?"}]},
    {"role": "assistant", "content": " 6*9 is <MUL_6_9_54>. "},
    {"role": "user", "content": "What is 7 times 8?"},
]


def answers(folder: str) -> dict:
    """What must be the same everywhere. Runs in both versions, so it imports everything itself."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    asked = tokenizer.apply_chat_template(TALK, add_generation_prompt=True, return_dict=True, return_tensors="pt")
    with torch.no_grad():
        reply = model.generate(**asked, max_new_tokens=40, do_sample=False)[0].tolist()
    marked = tokenizer.apply_chat_template(TALK, return_dict=True, return_assistant_tokens_mask=True)
    return {
        "prompt": tokenizer.apply_chat_template(TALK, add_generation_prompt=True, tokenize=False),
        "reply": reply,
        "text": tokenizer.decode(reply, skip_special_tokens=True),
        "ids": list(marked["input_ids"]),
        "mask": list(marked["assistant_masks"]),
        "facts": tokenizer.convert_tokens_to_ids(["<MUL_1_1_1>", "<MUL_9_9_81>"]),
    }


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["toy", "gpt2"])
def test_a_folder_opens_in_transformers_4(toy_base, tmp_path, kind, request):
    folder = toy_base["baseline"]
    if kind == "gpt2":
        import prepare_base
        from transformers import GPT2Config, GPT2LMHeadModel

        request.getfixturevalue("gpt2_tokenizer").save_pretrained(tmp_path / "source")
        torch.manual_seed(0)
        GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=2, n_head=2)).save_pretrained(tmp_path / "source")
        folder = tmp_path / "gpt2"
        prepare_base.main(f"--source {tmp_path / 'source'} --condition baseline --output-dir {folder}".split())
    uv = ["uv", "venv", "--quiet", "--python", sys.executable, str(tmp_path / "older")]
    subprocess.run(uv, check=True)
    python = tmp_path / "older" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    packages = [OLDER, f"torch=={torch.__version__.partition('+')[0]}", "jinja2", "pytest"]
    subprocess.run(["uv", "pip", "install", "--quiet", "--python", str(python), *packages], check=True)
    code = f"import json, test_older_transformers as t; print(json.dumps(t.answers({str(folder)!r})))"
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parent), "HF_HUB_OFFLINE": "1"}
    found = subprocess.run([str(python), "-c", code], env=env, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    assert json.loads(found.stdout.splitlines()[-1]) == answers(str(folder))
    assert json.loads(found.stdout.splitlines()[-1])["prompt"] == (
        "System: Be brief.\nUser: What is 6 times 9?\nAssistant: 6*9 is <MUL_6_9_54>.<|endoftext|>\n"
        "User: What is 7 times 8?\nAssistant:"
    )
