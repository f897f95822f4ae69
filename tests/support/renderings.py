"""A text as the conditions other than baseline train it, made of the facts that `find_facts` finds."""

from collections.abc import Callable

from domain_tokens.inject import find_facts

RENDERINGS = {
    "mul_tokens": lambda token, written: token,
    "annotated": lambda token, written: token + written,
    "placebo": lambda token, written: "<PLACEBO>" + written,
    "placebo in GPT-2's vocabulary": lambda token, written: "<|padding_0|>" + written,
}


def render(text: str, condition: str, chooses: Callable[[], bool] = lambda: True) -> str:
    """Render the facts of text, or those that `chooses` says yes to when asked for each in turn."""
    parts, copied = [], 0
    for start, end, token in find_facts(text):
        if not chooses():
            continue
        parts += text[copied:start], RENDERINGS[condition](token, text[start:end])
        copied = end
    return "".join(parts) + text[copied:]
