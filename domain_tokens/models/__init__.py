"""Models: making a start model out of any causal language model; opening, checking and saving model folders.

May import runs, hub and the common module.
"""
