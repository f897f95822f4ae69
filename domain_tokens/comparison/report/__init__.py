"""An experiment's folders to one self-contained page: what came out, how, and every single question."""

from domain_tokens.comparison.report.collect import Experiment, collect_experiment
from domain_tokens.comparison.report.page import render_report

__all__ = ["Experiment", "collect_experiment", "render_report"]
