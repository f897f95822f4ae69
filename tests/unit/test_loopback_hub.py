"""The loopback hub against the real clients, each in a process of its own: they read HF_ENDPOINT when imported."""

import hashlib
import inspect
import json
import random
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from loopback_hub import Fault, LoopbackHub, clean_environment, gsm8k_dataset, tulu_dataset

ALICE, READER, BOB = "hf_alice", "hf_alice_reads", "hf_bob"
WEIGHTS = random.Random(0).randbytes(250_001)


@pytest.fixture
def hub(request):
    with LoopbackHub(part_size=getattr(request, "param", None)) as hub:
        hub.add_user(ALICE, "alice", organizations=["lab"])
        hub.add_user(READER, "alice", write=False)
        hub.add_user(BOB, "bob")
        yield hub
        assert hub.unsupported == []


def run_client(function, hub, home, token=None, **arguments):
    """What the function returns, when its source alone is run with the hub's environment."""
    call = f"import json, sys\nprint(json.dumps({function.__name__}(**json.loads(sys.argv[1]))))"
    command = [sys.executable, "-c", f"{inspect.getsource(function)}\n{call}", json.dumps(arguments)]
    environment = clean_environment() | hub.environment(home, token)
    shown = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert shown.returncode == 0, shown.stderr[-3000:]
    return json.loads(shown.stdout.splitlines()[-1])


def asked(hub, *, method, part=""):
    return [exchange for exchange in hub.requests if exchange.method == method and part in exchange.path]


def write_files(folder, files):
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def read_files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


def upload_and_download(folder, kind):
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, hf_hub_download, snapshot_download

    api, repo = HfApi(), {"repo_id": "lab/things", "repo_type": kind}
    url = api.create_repo(**repo, private=True, exist_ok=True)
    api.create_repo(**repo, private=True, exist_ok=True)
    first = api.upload_folder(**repo, folder_path=folder, commit_message="first")
    again = api.upload_folder(**repo, folder_path=folder, commit_message="again")
    changes = [CommitOperationDelete("deep/"), CommitOperationAdd("note.txt", b"new")]
    last = api.create_commit(**repo, operations=changes, commit_message="last", parent_commit=first.oid)
    known = api.repo_info(**repo, files_metadata=True)
    refs = api.list_repo_refs(**repo)
    return {
        "name": api.whoami()["name"],
        "repo": [url.repo_id, url.repo_type],
        "same": again.oid == first.oid,
        "head": known.sha == last.oid == refs.branches[0].target_commit,
        "listed": {sibling.rfilename: sibling.size for sibling in known.siblings},
        "sha256": {sibling.rfilename: sibling.lfs.sha256 for sibling in known.siblings if sibling.lfs},
        "paths": [entry.path for entry in api.list_repo_tree(**repo, revision=first.oid, recursive=True, expand=True)],
        "found": [entry.path for entry in api.get_paths_info(**repo, paths=["note.txt", "model.safetensors", "none"])],
        "snapshot": snapshot_download(**repo, revision=first.oid),
        "note": hf_hub_download(**repo, filename="note.txt"),
    }


@pytest.mark.parametrize(("hub", "kind"), [(None, "model"), (100_000, "dataset")], indirect=["hub"])
def test_an_upload_comes_back(hub, kind, tmp_path):
    files = {
        "README.md": b"---\nlicense: mit\n---\n# Things\n",
        "config.json": b"{}\n",
        "model.safetensors": WEIGHTS,
        "deep/a b/é%2Fñ.json": b"[]",
        "deep/empty.bin": b"",
    }
    write_files(tmp_path / "folder", files)
    got = run_client(upload_and_download, hub, tmp_path / "home", ALICE, folder=str(tmp_path / "folder"), kind=kind)
    attributes = hub.files("lab/things", kind=kind)[".gitattributes"]
    assert read_files(got["snapshot"]) == files | {".gitattributes": attributes}
    assert Path(got["note"]).read_bytes() == b"new"
    assert got["name"] == "alice"
    assert got["repo"] == ["lab/things", kind]
    assert got["head"]
    assert got["paths"] == sorted([*files, ".gitattributes", "deep", "deep/a b"])
    assert got["found"] == ["model.safetensors", "note.txt"]
    kept = {name: content for name, content in files.items() if not name.startswith("deep/")}
    assert hub.files("lab/things", kind=kind) == kept | {".gitattributes": attributes, "note.txt": b"new"}
    assert got["listed"] == {name: len(data) for name, data in hub.files("lab/things", kind=kind).items()}
    assert got["sha256"] == {"model.safetensors": hashlib.sha256(WEIGHTS).hexdigest()}
    assert hub.is_private("lab/things", kind=kind)

    assert got["same"]
    assert hub.commits("lab/things", kind=kind) == ["initial commit", "first", "last"]
    assert len(asked(hub, method="PUT")) == (1 if hub.part_size is None else 3)
    storage = asked(hub, method="PUT") + asked(hub, method="GET", part="/lfs/")
    assert {exchange.authorization for exchange in storage} == {None}


def load_data():
    import datasets

    def refused(*arguments, **options):
        try:
            datasets.load_dataset(*arguments, **options)
        except Exception as error:
            return type(error).__name__

    return {
        "tulu": list(datasets.load_dataset("allenai/tulu-3-sft-mixture", split="train")),
        "gsm8k": list(datasets.load_dataset("openai/gsm8k", "main", split="test")),
        "no subset": refused("openai/gsm8k", split="test"),
        "unknown": refused("openai/none", split="test"),
    }


def test_datasets_load_by_id(hub, tmp_path):
    chats = [{"id": f"{i}", "messages": [{"role": "user", "content": f"{i}?"}], "source": "tulu"} for i in range(3)]
    train = [{"question": "What is 2 times 2?", "answer": "#### 4"}]
    test = [{"question": "What is 2 times 3?", "answer": "2*3=<<2*3=6>>6\n#### 6"}]
    hub.add_repo("allenai/tulu-3-sft-mixture", tulu_dataset(chats), kind="dataset")
    hub.add_repo("openai/gsm8k", gsm8k_dataset(train, test), kind="dataset")
    got = run_client(load_data, hub, tmp_path)
    assert got == {"tulu": chats, "gsm8k": test, "no subset": "ValueError", "unknown": "DatasetNotFoundError"}


def push_and_load(folder):
    from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

    config = GPT2Config(n_layer=1, n_head=1, n_embd=8, vocab_size=10, bos_token_id=0, eos_token_id=0)
    GPT2LMHeadModel(config).push_to_hub("alice/tiny", private=True)
    AutoModelForCausalLM.from_pretrained("alice/tiny").save_pretrained(folder)


def test_a_model_loads_by_id(hub, tmp_path):
    run_client(push_and_load, hub, tmp_path / "home", ALICE, folder=str(tmp_path / "loaded"))
    weights = (tmp_path / "loaded/model.safetensors").read_bytes()
    assert hub.files("alice/tiny")["model.safetensors"] == weights
    assert hub.is_private("alice/tiny")


def download(names):
    import time

    from huggingface_hub import hf_hub_download

    def seconds_and_path(name):
        started = time.perf_counter()
        try:
            path = hf_hub_download("alice/things", name)
        except Exception as error:
            path = f"{type(error).__name__}: {error}"
        return time.perf_counter() - started, path

    return {name: seconds_and_path(name) for name in names}


def test_downloads_that_go_wrong(hub, tmp_path):
    names = ("cut.safetensors", "late.json", "wrong.bin", "slow.json", "gone.json")
    files = {name: name.encode() + WEIGHTS for name in names}
    files["cut.safetensors"] *= 50  # clients keep what came in whole blocks of 10 MiB
    hub.add_repo("alice/things", files)
    hub.fail(Fault("cut.safetensors", times=1, cut_after=11_000_000))
    hub.fail(Fault("^GET .*late.json", times=1, status=429, headers={"Retry-After": "1"}))
    hub.fail(Fault("wrong.bin", corrupt=True))
    hub.fail(Fault("slow.json", delay=0.02))
    hub.fail(Fault("^GET .*gone.json", status=500, message="the disk is full"))
    got = run_client(download, hub, tmp_path, names=names)
    assert "the disk is full" in got.pop("gone.json")[1]
    content = {name: Path(path).read_bytes() for name, (_, path) in got.items()}

    assert content["cut.safetensors"] == files["cut.safetensors"]
    cut = asked(hub, method="GET", part="/cut.safetensors")
    assert [(exchange.status, exchange.range) for exchange in cut] == [(200, None), (206, f"bytes={10 * 2**20}-")]

    assert content["late.json"] == files["late.json"]
    assert [exchange.status for exchange in asked(hub, method="GET", part="late.json")] == [429, 200]
    assert got["late.json"][0] > 1

    assert sum(a != b for a, b in zip(content["wrong.bin"], files["wrong.bin"], strict=True)) == 1

    assert content["slow.json"] == files["slow.json"]
    assert got["slow.json"][0] > 1


def upload():
    from huggingface_hub import HfApi

    def attempt(name, content):
        try:
            HfApi().upload_file(repo_id="alice/things", path_or_fileobj=content, path_in_repo=name, commit_message=name)
        except Exception as error:
            return type(error).__name__

    return [attempt(f"{i}.safetensors", b"%d" % i * 1_000_000) for i in range(3)]


def test_uploads_that_go_wrong(hub, tmp_path):
    hub.add_repo("alice/things", {})
    hub.fail(Fault("^PUT", times=1, cut_after=500_000))
    hub.fail(Fault("/commit/", times=1, status=503))
    hub.fail(Fault("/commit/", times=1, cut_after=1_000_000))
    assert run_client(upload, hub, tmp_path, ALICE) == ["HfHubHTTPError", "RemoteProtocolError", None]
    assert [exchange.status for exchange in asked(hub, method="PUT")] == [0, 200, 200, 200]
    assert [exchange.status for exchange in asked(hub, method="POST", part="/commit/")] == [503, 0, 200]
    assert hub.commits("alice/things") == ["initial commit", "1.safetensors", "2.safetensors"]  # 1 came, unanswered


def refusals(tokens):
    from huggingface_hub import HfApi, hf_hub_download, snapshot_download

    def refused(function, *arguments, **options):
        try:
            function(*arguments, **options)
        except Exception as error:
            return type(error).__name__, getattr(getattr(error, "response", None), "status_code", None)

    api = HfApi()
    add = {"path_or_fileobj": b"x", "path_in_repo": "x"}
    card = {"path_or_fileobj": b"---\na: [\n---\n", "path_in_repo": "README.md"}
    return {
        name: {
            "unknown file": refused(hf_hub_download, "alice/open", "none", token=token),
            "unknown revision": refused(snapshot_download, "alice/open", revision="v2", token=token),
            "unknown repository": refused(api.model_info, "alice/none", token=token),
            "private": refused(api.model_info, "alice/private", revision="v1", token=token),
            "create": refused(api.create_repo, "alice/open", token=token),
            "create elsewhere": refused(api.create_repo, "carol/new", token=token),
            "write": refused(api.upload_file, repo_id="alice/open", **add, token=token),
            "bad card": refused(api.upload_file, repo_id="alice/open", **card, token=token),
            "whoami": refused(api.whoami, token=token),
        }
        for name, token in tokens.items()
    }


def test_refusals(hub, tmp_path):
    hub.add_repo("alice/open", {"a.bin": b"a"})
    hub.add_repo("alice/private", {"a.bin": b"a"}, private=True)
    hub.add_revision("alice/private", "v1")
    tokens = {"nobody": False, "stranger": "hf_none", "reader": READER, "bob": BOB, "alice": ALICE}
    got = run_client(refusals, hub, tmp_path, tokens=tokens)

    missing, forbidden = ["RepositoryNotFoundError", 404], ["HfHubHTTPError", 403]
    unknown = {
        "unknown file": ["RemoteEntryNotFoundError", 404],
        "unknown revision": ["RevisionNotFoundError", 404],
        "unknown repository": missing,
        "bad card": ["ValueError", None],
        "create elsewhere": forbidden,
    }
    hidden, unauthorized = ["RepositoryNotFoundError", 401], ["HfHubHTTPError", 401]
    assert got["nobody"] == unknown | {
        "unknown repository": hidden,
        "private": hidden,
        "create": unauthorized,
        "create elsewhere": unauthorized,
        "write": hidden,
        "whoami": ["ValueError", None],
    }
    assert got["stranger"] == dict.fromkeys(got["nobody"], unauthorized)
    allowed = {"private": None, "whoami": None}
    assert got["reader"] == unknown | allowed | {"create": forbidden, "write": forbidden}
    assert got["bob"] == unknown | {"private": missing, "create": forbidden, "write": forbidden, "whoami": None}
    assert got["alice"] == unknown | allowed | {"create": ["HfHubHTTPError", 409], "write": None}


@pytest.mark.parametrize(
    ("asked_range", "status", "content", "content_range"),
    [
        ("bytes=2-4", 206, b"cde", "bytes 2-4/6"),
        ("bytes=4-", 206, b"ef", "bytes 4-5/6"),
        ("bytes=-2", 206, b"ef", "bytes 4-5/6"),
        ("bytes=4-99", 206, b"ef", "bytes 4-5/6"),
        ("bytes=6-", 416, b"", "bytes */6"),
    ],
)
def test_ranges(hub, asked_range, status, content, content_range):
    hub.add_repo("alice/open", {"a.bin": b"abcdef", "a.txt": b"abcdef"})
    for name in ("a.bin", "a.txt"):
        url = f"{hub.url}/alice/open/resolve/main/{name}"
        answer = fetch(urllib.request.Request(url, headers={"Range": asked_range}))
        assert (answer.status, answer.read(), answer.headers["Content-Range"]) == (status, content, content_range)


def test_what_is_no_object_is_not_stored(hub):
    hub.add_repo("alice/open", {})
    wrong = urllib.request.Request(f"{hub.url}/lfs/{'0' * 64}", data=b"x", method="PUT")
    assert fetch(wrong).status == 400
    lines = [{"key": "header", "value": {"summary": "wrong"}}]
    lines += [{"key": "lfsFile", "value": {"path": "a.bin", "algo": "sha256", "oid": "0" * 64, "size": 1}}]
    body = "\n".join(map(json.dumps, lines)).encode()
    url = f"{hub.url}/api/models/alice/open/commit/main"
    assert fetch(urllib.request.Request(url, data=body, headers={"Authorization": f"Bearer {ALICE}"})).status == 400
    assert hub.commits("alice/open") == ["initial commit"]


def test_what_is_not_supported_is_remembered(hub):
    assert fetch(f"{hub.url}/api/spaces/alice/open?full=1").status == 404
    assert hub.unsupported == ["GET /api/spaces/alice/open?full=1"]
    hub.unsupported.clear()


def fetch(request):
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        return opener.open(request)
    except urllib.error.HTTPError as error:
        return error
