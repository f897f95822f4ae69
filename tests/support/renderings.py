"""A text as the conditions other than baseline train it, with all of its facts rewritten or some of them."""

from collections.abc import Callable

from domain_tokens.conditions import CONDITIONS
from domain_tokens.facts import GPT2_FILLERS
from domain_tokens.inject import find_facts

RENDERINGS = {name: (each, "<PLACEBO>") for name, each in CONDITIONS.items() if each.injects}
RENDERINGS["placebo in GPT-2's vocabulary"] = (CONDITIONS["placebo"], GPT2_FILLERS[0])


def render(text: str, condition: str, chooses: Callable[[], bool] | None = None) -> str:
    """Rewrite the facts of text, or those that `chooses` says yes to when asked for each in turn."""
    rendering, placebo = RENDERINGS[condition]
    if chooses is None:
        return rendering.rewrite(text, placebo)[0]
    parts, copied = [], 0
    for start, end, _ in find_facts(text):
        if not chooses():
            continue
        parts += text[copied:start], rendering.rewrite(text[start:end], placebo)[0]
        copied = end
    return "".join(parts) + text[copied:]
