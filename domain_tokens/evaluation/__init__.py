"""Evaluating a model: questions, greedy and sampled replies, scores, and a whole evaluation with its results file.

May import models, data, runs and the common module.
"""
