"""Optional dependencies: an error names what is absent and the command that installs it."""

import importlib.util

#: TF-Agents pins versions that contradict TensorFlow's, but works with those of the extra `rl`.
TF_AGENTS = "pip install 'mmaml_tf[rl]' && pip install --no-deps tf-agents==0.19.0"


def absent(extra: str, *modules: str, command: str | None = None) -> str:
    """Returns a message where modules of an extra are not installed, and else "".

    Args:
        extra: name of the extra.
        *modules: top-level modules that are needed.
        command: what installs them, where the extra alone does not.
    """
    names = ", ".join(name for name in modules if not importlib.util.find_spec(name))
    if not names:
        return ""
    command = command or f"pip install 'mmaml_tf[{extra}]'"
    return f"{names} not installed; install the extra `{extra}`: {command}"
