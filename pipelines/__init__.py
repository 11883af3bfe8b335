"""The DVC stages, one thin script each. They read params.yaml, call mmaml_tf, write files."""
