"""Model folders: making a start model out of any causal language model, its vocabulary, opening, checking and saving.

May import runs, hub and the common module.
"""
