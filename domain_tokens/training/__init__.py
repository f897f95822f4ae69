"""Supervised fine-tuning, the same for every stage and condition: stage.py reads from top to bottom.

May import models, data, evaluation (for replies to sample prompts), runs, hub and the common module.
"""
