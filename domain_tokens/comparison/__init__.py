"""Evaluations side by side: reading them, statistics, figures, an experiment's progress and its report.

May import data, evaluation, runs and the common module, and needs no torch.
"""
