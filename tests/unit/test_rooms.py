"""The house: imports go one way, rooms say what they hold, modules and functions stay short."""

import ast
import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "domain_tokens"
COMMON = ("facts", "conditions", "inject", "prompt", "answers")
ROOMS = ("runs", "models", "data", "training", "evaluation", "comparison", "hub")
LONGEST_MODULE, LONGEST_FUNCTION = 250, 60
# Longer ones, each with its reason.
LONG_MODULES: dict[str, str] = {}


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def imported(path: Path) -> set[str]:
    """The modules of the package that a file imports, at its top or later, without the package's name."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "domain_tokens":
            inside = (node.module or "").removeprefix("domain_tokens").removeprefix(".")
            names |= {inside} if inside else {name.name for name in node.names}
        elif isinstance(node, ast.Import):
            names |= {name.name.removeprefix("domain_tokens.") for name in node.names if "domain_tokens." in name.name}
    return names


def test_the_common_module_imports_nothing_but_itself():
    for name in COMMON:
        assert imported(PACKAGE / f"{name}.py") <= set(COMMON), name


def test_runs_imports_only_itself_and_the_common_module():
    for path in (PACKAGE / "runs").glob("*.py"):
        rooms = {name.partition(".")[0] for name in imported(path)}
        assert rooms <= {"runs", *COMMON}, path.name


def test_no_room_imports_a_script_and_no_script_another():
    root = PACKAGE.parent
    scripts = {path.stem for room in ("sft", "eval", "sample", "scripts") for path in (root / room).glob("*.py")}
    assert len(scripts) > 10
    for path in [
        *modules(),
        *(path for room in ("sft", "eval", "sample", "scripts") for path in (root / room).glob("*.py")),
    ]:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        names = {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
        names |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        assert not names & scripts, path.name


@pytest.mark.parametrize("room", ROOMS)
def test_every_room_says_what_is_in_it_and_what_it_may_import(room):
    docstring = ast.get_docstring(ast.parse((PACKAGE / room / "__init__.py").read_text(encoding="utf-8")))
    named = {name for name in ROOMS if re.search(rf"\b{name}\b", docstring.partition("May import")[2])}
    for path in (PACKAGE / room).rglob("*.py"):
        assert {name.partition(".")[0] for name in imported(path)} & set(ROOMS) <= {room, *named}, path.name


def test_modules_and_functions_stay_short():
    for path in modules():
        text = path.read_text(encoding="utf-8")
        name = str(path.relative_to(PACKAGE))
        assert text.count("\n") <= LONGEST_MODULE or name in LONG_MODULES, name
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                assert node.end_lineno - node.lineno < LONGEST_FUNCTION, f"{name}: {node.name}"


def test_possessive_quantifiers_are_left_to_regex():
    # Python's re misreads them before 3.11.5 (https://github.com/python/cpython/issues/106052).
    found = set()
    for path in modules():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        texts = [
            node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)
        ]
        if any(re.search(r"[])\w][*+?]\+|\d\}\+", text) for text in texts):
            found.add(path.name)
            names = {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
            assert "regex" in names and "re" not in names, path
    assert found == {"answers.py", "facts.py", "inject.py"}
