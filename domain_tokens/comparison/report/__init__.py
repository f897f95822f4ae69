"""An experiment's folders as one self-contained page: what came out, how it was made, and every single question."""

from domain_tokens.comparison.report.collect import collect_experiment
from domain_tokens.comparison.report.page import render_report

__all__ = ["collect_experiment", "render_report"]
