"""A YAML file and `key=value` overrides to small frozen dataclasses. Strict: nothing is guessed, nothing ignored.

Every value stands in the YAML; there is no second copy of a recipe here. An override names a key in full
(`trainer.learning_rate=1e-4`) or by its last part where that is unambiguous (`learning_rate=1e-4`).
"""

CONDITIONS = ("baseline", "mul_tokens")
