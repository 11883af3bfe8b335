"""What a callable does, as text: its code and every value that it holds or looks up.

Callables of equal text compute the same, so that a digest of the text tells others apart.
"""

import dis
import functools
import hashlib
import inspect
import sys
import types
from collections.abc import Mapping

import numpy as np
import tensorflow as tf

_PLAIN = (type(None), bool, int, float, complex, str, bytes, type(...))


def text_of(function) -> str:
    """Returns the text of a function, lambda, partial, bound method or callable object.

    The source stands for the code of a named function where there is one, so that the text is
    the same with any version of Python. The bytecode stands for that of a lambda, which may share
    its line with others, and of a function that was typed at a prompt.

    Raises:
        ValueError: for values that have no text of their own, such as open files or generators of
            random numbers.
    """
    return _Reader(function).text(function)


class _Reader:
    """Turns values into text. What belongs to a library is told by its name."""

    def __init__(self, function):
        self._home = _home(function)
        self._open = []  # values whose parts are being read: they may hold one another

    def text(self, value) -> str:
        if isinstance(value, np.generic):
            value = value.item()
        if isinstance(value, tf.Tensor | tf.Variable):
            value = value.numpy()
        if isinstance(value, _PLAIN):
            return f"{type(value).__name__} {value!r}"
        if isinstance(value, np.ndarray) and value.dtype != object:
            return f"array {value.dtype.str} {value.shape} {value.tobytes().hex()}"
        if isinstance(value, types.ModuleType):
            return f"module {value.__name__}"
        for depth, other in enumerate(self._open):
            if other is value:
                return f"around {depth}"
        self._open.append(value)
        parts = ", ".join(self._parts(value))
        self._open.pop()
        return f"{type(value).__name__} {hashlib.sha256(parts.encode()).hexdigest()}"

    def _parts(self, value):
        if isinstance(value, tuple | list):
            return [self.text(part) for part in value]
        if isinstance(value, set | frozenset):
            return sorted(self.text(part) for part in value)
        if isinstance(value, Mapping):
            return sorted(f"{self.text(k)}: {self.text(v)}" for k, v in value.items())
        if isinstance(value, functools.partial):
            return [self.text(part) for part in (value.func, value.args, value.keywords)]
        if isinstance(value, types.MethodType):
            return [self.text(value.__func__), self.text(value.__self__)]
        if isinstance(value, classmethod | staticmethod):
            return [self.text(value.__func__)]
        if isinstance(value, property):
            return [self.text(part) for part in (value.fget, value.fset)]
        if isinstance(value, types.CodeType):
            return [value.co_code.hex(), repr(value.co_names), self.text(value.co_consts)]
        if isinstance(value, types.FunctionType | types.BuiltinFunctionType | np.ufunc | type):
            if _home(value) != self._home:
                return [str(getattr(value, "__module__", "")), value.__name__]
            return (self._class if isinstance(value, type) else self._function)(value)
        own = [base for base in type(value).__mro__ if base is not object]
        if any(_home(base) != self._home for base in own) or not hasattr(value, "__dict__"):
            raise ValueError(
                f"it uses a {type(value).__name__}, and nothing tells one of these from another; "
                "use numbers, strings, arrays, functions or objects of classes of your own"
            )
        return [self.text(type(value)), self.text(vars(value))]

    def _function(self, function):
        source = None if function.__name__ == "<lambda>" else _source(function)
        code = self.text(function.__code__) if source is None else source
        defaults = function.__defaults__, function.__kwdefaults__
        return [code, self.text(defaults), self.text(_closure(function) | _globals(function))]

    def _class(self, cls):
        ignored = ("__dict__", "__weakref__", "__doc__", "__module__", "__annotations__")
        members = {key: member for key, member in vars(cls).items() if key not in ignored}
        bases = [base for base in cls.__bases__ if base is not object]
        return [cls.__qualname__, self.text(bases), self.text(members)]


def _home(value):
    """Returns the library that a function or class belongs to, "own" for a user's."""
    while isinstance(value, functools.partial):
        value = value.func
    package = (getattr(value, "__module__", None) or "builtins").partition(".")[0]
    if package == "builtins" and isinstance(value, types.FunctionType):
        return "own"  # typed where there is no module
    file = getattr(sys.modules.get(package), "__file__", None) or ""
    library = "site-packages" in file or package in sys.stdlib_module_names
    return package if library or package == __name__.partition(".")[0] else "own"


def _source(function):
    try:
        return inspect.getsource(function)
    except (OSError, TypeError):
        return None


def _closure(function):
    """Returns the values that a function has from around it, by name."""
    found = {}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            found[name] = cell.cell_contents
        except ValueError:  # nothing was assigned yet
            found[name] = None
    return found


def _globals(function):
    """Returns the global values that a function or those written inside it look up, by name."""
    names, codes = set(), [function.__code__]
    while codes:
        code = codes.pop()
        names |= {i.argval for i in dis.get_instructions(code) if i.opname == "LOAD_GLOBAL"}
        codes += [part for part in code.co_consts if isinstance(part, types.CodeType)]
    return {name: function.__globals__[name] for name in names if name in function.__globals__}
