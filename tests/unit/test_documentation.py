"""The pages are true: they link what exists, and the README stays short."""

import re

import pytest
from documents import PAGES, ROOT, documented_commands


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files_that_exist(page):
    links = re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8"))
    for link in links:
        assert (page.parent / link).exists(), link


def test_the_readme_is_short_and_begins_with_the_picture_and_two_commands():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    lines = text.splitlines()
    assert len(lines) <= 200
    first_screen = "\n".join(lines[:40])
    assert "![" in first_screen
    assert [line.rpartition("&& ")[2] for line in documented_commands(first_screen)] == [
        "uv run python scripts/run_experiment.py", "uv run pytest",
    ]  # fmt: skip


def test_files_that_the_pages_name_exist():
    for page in PAGES:
        for name in re.findall(
            r"`((?:domain_tokens|sft|eval|sample|scripts|tests)/[\w./]+\.\w+)`", page.read_text(encoding="utf-8")
        ):
            assert (ROOT / name).is_file(), f"{page.name}: {name}"
