"""How the next token of a reply is chosen. Needs no torch, so that wrong flags are reported before its import."""

from dataclasses import dataclass
from typing import Any

from domain_tokens.runs.errors import InputError

COLDEST, HOTTEST = 0.01, 100.0  # below, float32 probabilities overflow; above, all tokens are alike


@dataclass(frozen=True)
class Sampling:
    """Draw at a temperature from the `top_k` likeliest tokens, or from the likeliest that sum to probability `top_p`.

    A temperature of None is greedy: always the likeliest token. Raises InputError for values that cannot be used.
    """

    temperature: float | None = 0.7
    top_k: int | None = None
    top_p: float | None = None

    def __post_init__(self):
        if self.temperature is not None and not COLDEST <= self.temperature <= HOTTEST:
            span = f"{COLDEST} to {HOTTEST:g}; greedy takes the likeliest token every time"
            raise InputError(f"temperature is {self.temperature}, expected {span}")
        if self.top_k is not None and self.top_k < 1:
            raise InputError(f"top-k is {self.top_k}, expected at least 1 token to draw from")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise InputError(f"top-p is {self.top_p}, expected more than 0 and at most 1")

    def settings(self) -> dict[str, Any]:
        """Return the arguments of transformers' `generate`, whose defaults would draw from the likeliest 50 tokens."""
        if self.temperature is None:
            return {"do_sample": False}
        top_p = 1.0 if self.top_p is None else self.top_p
        return {"do_sample": True, "temperature": self.temperature, "top_k": self.top_k or 0, "top_p": top_p}

    def __str__(self) -> str:
        parts = {"temperature": self.temperature, "top-k": self.top_k, "top-p": self.top_p}
        shown = ", ".join(f"{name} {value:g}" for name, value in parts.items() if value is not None)
        return "greedy" if self.temperature is None else shown
