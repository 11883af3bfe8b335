"""The commands of `mmaml`, which is `python -m mmaml_tf`, one module each."""
