"""Private names of libraries that the package touches: after an upgrade, these are the places to look at."""

import ast
import importlib
from pathlib import Path

import datasets
import huggingface_hub
import transformers
from transformers.configuration_utils import PreTrainedConfig

PACKAGE = Path(__file__).parents[2] / "domain_tokens"
LIBRARIES = ("transformers", "accelerate", "datasets", "huggingface_hub")

# module: name -> who has it
TOUCHED = {
    "data/readers.py": {"_fingerprint": datasets.Dataset.from_dict({"row": [1]})},
    "evaluation/grouped_decoding.py": {"_attn_implementation": PreTrainedConfig},
    "hub/client.py": {"_http": huggingface_hub.utils},
    "training/packing.py": {"_attn_implementation": PreTrainedConfig},
    "training/trainer.py": {"_save_rng_state": transformers.Trainer},
}


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("__")


def own_names(tree: ast.Module) -> set[str]:
    """Return the private names that a module defines itself."""
    names = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    names |= {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    return names | {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and is_own_store(node)}


def is_own_store(node: ast.Attribute) -> bool:
    return isinstance(node.ctx, ast.Store) and isinstance(node.value, ast.Name) and node.value.id == "self"


def overridden_names(path: Path, tree: ast.Module) -> set[str]:
    """Return the private names of a module's classes that a library's base class has too."""
    classes = [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    if not any(node.bases for node in classes):
        return set()
    module = importlib.import_module(".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts))
    names = set()
    for node in classes:
        found = getattr(module, node.name, None)
        if found is None:
            continue
        bases = [base for base in found.__mro__ if base.__module__.partition(".")[0] in LIBRARIES]
        stored = {inner.attr for inner in ast.walk(node) if isinstance(inner, ast.Attribute) and is_own_store(inner)}
        defined = {inner.name for inner in node.body if isinstance(inner, ast.FunctionDef)}
        names |= {name for name in defined | stored if any(hasattr(base, name) for base in bases)}
    return {name for name in names if is_private(name)}


def touched_names(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    used = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and is_private(node.attr)}
    used -= own_names(tree) | {"_exit", "_asdict"}  # of os, and of named tuples
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module.partition(".")[0] in LIBRARIES:
            words = [*node.module.split("."), *(name.name for name in node.names)]
            used |= {word for word in words if is_private(word)}
        elif isinstance(node, ast.Call):
            used |= {keyword.arg for keyword in node.keywords if keyword.arg and is_private(keyword.arg)}
    return used | overridden_names(path, tree)


def test_every_private_name_of_a_library_is_listed_and_no_other():
    found = {str(path.relative_to(PACKAGE)): touched_names(path) for path in sorted(PACKAGE.rglob("*.py"))}
    assert {path: names for path, names in found.items() if names} == {
        path: set(names) for path, names in TOUCHED.items()
    }


def test_every_listed_name_exists_in_the_installed_library():
    for path, names in TOUCHED.items():
        for name, owner in names.items():
            assert hasattr(owner, name), f"{path} uses {name} of {owner}, which no longer has it"


def test_an_overridden_or_imported_private_name_is_found(tmp_path, monkeypatch):
    source = """
from transformers import TrainerCallback
from huggingface_hub.utils._http import hf_raise_for_status
import accelerate

class Own:
    def __init__(self, other):
        self._mine = other._theirs

    def _own(self):
        return accelerate.run(_setting=self._mine)
"""
    module = tmp_path / "domain_tokens_example.py"
    module.write_text(source)
    assert touched_names(module) == {"_http", "_theirs", "_setting"}
    assert "_save_rng_state" in touched_names(PACKAGE / "training/trainer.py")
