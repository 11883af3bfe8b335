"""The commands of `python -m mmaml_tf`, one module each."""
