"""Public functions and methods are annotated, for type checkers and editors."""

import importlib
import inspect

import pytest

MODULES = (
    "mmaml_tf",
    "mmaml_tf.encoders",
    "mmaml_tf.evaluation",
    "mmaml_tf.modulation",
    "mmaml_tf.networks",
    "mmaml_tf.rl",
    "mmaml_tf.rl.rollouts",
    "mmaml_tf.tasks",
    "mmaml_tf.training",
    "mmaml_tf.update_rules",
)


def functions(module):
    """Yields the public functions of a module and the methods of its classes, by name."""
    own = [
        name
        for name, member in vars(module).items()
        if getattr(member, "__module__", "") == module.__name__ and not name.startswith("_")
    ]
    for name in getattr(module, "__all__", own):
        member = getattr(module, name)
        if inspect.isclass(member):
            classes = [c for c in member.__mro__ if c.__module__.startswith("mmaml_tf")]
            yield from (pair for kind in classes for pair in methods(kind))
        elif inspect.isfunction(member):
            yield name, member


def methods(kind):
    for name, member in vars(kind).items():
        member = getattr(member, "fget", None) or getattr(member, "__func__", member)
        public = not name.startswith("_") or name in ("__init__", "__call__")
        if inspect.isfunction(member) and public and member.__module__ == kind.__module__:
            yield f"{kind.__name__}.{name}", member


def missing(function):
    """Returns the names of arguments without annotation, and "return"."""
    signature = inspect.signature(inspect.unwrap(function))
    several = inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD
    names = [
        p.name
        for p in signature.parameters.values()
        if p.annotation is p.empty and p.kind not in several and p.name not in ("self", "cls")
    ]
    if signature.return_annotation is signature.empty and function.__name__ != "__init__":
        names.append("return")
    return names


@pytest.mark.parametrize("module", MODULES)
def test_public_functions_are_annotated(module):
    found = dict(functions(importlib.import_module(module)))
    assert found
    assert {name: absent for name, function in found.items() if (absent := missing(function))} == {}
