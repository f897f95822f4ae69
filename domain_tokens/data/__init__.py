"""Training rows: reading them from wherever they lie, conversations, splits, contamination, labelled tokens.

May import runs, hub and the common module.
"""
