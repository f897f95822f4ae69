"""The documentation as tests read it: the README and the pages below docs/."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "CONTRIBUTING.md")


def documentation() -> str:
    return "\n".join(page.read_text(encoding="utf-8") for page in PAGES)


def documented_commands(text: str | None = None) -> list[str]:
    """Every line of the bash blocks, continuation lines joined."""
    blocks = re.findall(r"```bash\n(.*?)```", documentation() if text is None else text, re.DOTALL)
    return [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
