"""One token per multiplication fact: the rules every stage of the experiment shares.

Only the torch-free, text-in text-out functions are importable from here; everything heavier is imported from
its own module, so that `import domain_tokens` and every `--help` stay fast.
"""

from domain_tokens.answers import extract_answer, is_correct
from domain_tokens.inject import expand, inject

__all__ = ["expand", "extract_answer", "inject", "is_correct"]
