"""Evaluating a model: questions, greedy and sampled replies, scores, and a whole evaluation with its results file.

May import models, data, hub (for datasets), runs and the common module.
"""
