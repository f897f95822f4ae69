"""An experiment's folders as one self-contained page: what came out, how it was made, and every single question."""
