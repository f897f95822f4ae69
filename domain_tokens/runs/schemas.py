"""What every run writes down: one schema for training, one for evaluation, and where the numbers come from.

Files appear whole or not at all: each is written under a temporary name and renamed, the results file last, so a
folder with its results file is complete.
"""

# Rises with any change of prompt, stop rule or answer pattern: figures of different versions are not compared.
EVAL_VERSION = 2
