"""An experiment's folders to one self-contained page: what came out, how, and every single question."""

from domain_tokens.report.collect import Experiment, collect
from domain_tokens.report.page import render

__all__ = ["Experiment", "collect", "render"]
