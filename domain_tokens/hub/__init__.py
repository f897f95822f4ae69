"""Models to and from the Hugging Face Hub: its client, uploads, downloads and the model card.

May import models, runs and the common module.
"""
