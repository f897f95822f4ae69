"""Asking a model: questions, greedy and sampled replies, scores, and one evaluation from start to results file.

May import models, data, runs and the common module.
"""
