"""Errors for names that are not the right ones: they give the right ones."""

import functools
import inspect
import warnings
from collections.abc import Callable, Mapping


def checked(*, still: Mapping[str, str] | None = None, **renamed: str) -> Callable:
    """Decorates a function, so that a wrong way to call it is answered with the right one.

    Refused are arguments of a former name, and values by position where it takes keywords alone.

    Args:
        still: arguments that may also be given by a former name, which warns: the name now, by the
            former one.
        **renamed: what to give now, by the former name of an argument that is refused.
    """
    still = dict(still or {})

    def decorate(function):
        signature = inspect.signature(function)
        parameters = signature.parameters.values()
        positional = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
        keywords = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]

        @functools.wraps(function)
        def call(*args, **kwargs):
            constructs = function.__name__ == "__init__"
            name = type(args[0]).__name__ if constructs else function.__name__
            for old in set(renamed) & set(kwargs):
                raise TypeError(f"{name} has no argument {old!r} any more; give {renamed[old]}.")
            for old in set(still) & set(kwargs):
                if still[old] in kwargs:
                    raise TypeError(f"{name} got {still[old]!r} twice, once as {old!r}.")
                warnings.warn(f"{old} is {still[old]} now.", FutureWarning, stacklevel=2)
                kwargs[still[old]] = kwargs.pop(old)
            if keywords and len(args) > len(positional):
                found, last = type(args[len(positional)]).__name__, positional[-1]
                raise TypeError(
                    f"{name} got a {found} after {last}; give what follows {last} by keyword: "
                    f"{'=, '.join(keywords)}=."
                )
            return function(*args, **kwargs)

        # Keras looks at the signature of constructors, not always through what wraps them.
        call.__signature__ = signature
        return call

    return decorate


def moved(module: str, **names: str) -> Callable:
    """Returns the `__getattr__` of a module for names that are elsewhere now.

    Args:
        module: the module's `__name__`.
        **names: the full new name, by the former one.
    """

    def getattr_of_module(name):
        if name in names:
            # `from module import name` would hide the text of an AttributeError.
            raise ImportError(f"{module}.{name} is {names[name]} now; use that.")
        raise AttributeError(f"module {module!r} has no attribute {name!r}")

    return getattr_of_module
