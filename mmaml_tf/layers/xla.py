"""Whether XLA compiles what is traced, which some layers choose their form by."""

import contextlib
import contextvars

_compiled_by_xla = contextvars.ContextVar("compiled_by_xla", default=False)


@contextlib.contextmanager
def compiled_by_xla(xla: bool):
    """While active, what is traced is compiled by XLA (or is not); some layers choose by it."""
    token = _compiled_by_xla.set(xla)
    try:
        yield
    finally:
        _compiled_by_xla.reset(token)


def is_compiled_by_xla() -> bool:
    """Tells whether XLA compiles what is traced now."""
    return _compiled_by_xla.get()
