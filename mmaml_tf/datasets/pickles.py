"""Unpickling arrays and plain containers, and nothing else.

CIFAR-100 and mini-ImageNet's cached files are pickles, which could run any code. Here a pickle
gets none of the real constructors: it builds stand-ins, which become arrays at the end.
"""

import math
import pickle
import re
from collections import OrderedDict

import numpy as np

from mmaml_tf.datasets.errors import DatasetError

# Booleans, numbers, bytes and text; no objects and no structures.
_DTYPE = re.compile(r"[<>|=]?(b1|[iu][1248]|f[248]|c8|c16|[SU]\d{1,6})")


class _Dtype:
    """A dtype of which nothing but its name and byte order are taken from the pickle."""

    def __init__(self, name, align=False, copy=False):
        name = name.decode("latin1") if isinstance(name, bytes) else name
        if not (isinstance(name, str) and _DTYPE.fullmatch(name)):
            raise DatasetError(f"numpy dtype {name!r}")
        self.value = np.dtype(name)

    def __setstate__(self, state):
        order = state[1].decode() if isinstance(state[1], bytes) else state[1]
        self.value = self.value.newbyteorder(order)


class _Array:
    """An array that is filled after it was made, as pickles do it."""

    def __init__(self):
        self.value = np.empty(0, np.uint8)

    def __setstate__(self, state):
        _, shape, dtype, fortran, data = state
        data = data.encode("latin1") if isinstance(data, str) else data
        self.value = _array(data, dtype, shape, "F" if fortran else "C")


class _NDArray:
    """Stands in for the class `numpy.ndarray`, which a pickle only names."""


def _array(data, dtype, shape, order="C"):
    shape = tuple(shape)
    if not isinstance(dtype, _Dtype) or not all(type(n) is int and n >= 0 for n in shape):
        raise DatasetError(f"an array of shape {shape!r} and dtype {dtype!r}")
    expected = math.prod(shape) * dtype.value.itemsize
    if len(data) != expected:
        raise DatasetError(f"an array of {expected:,} bytes with {len(data):,} bytes of data")
    if not expected:
        return np.empty(shape, dtype.value)
    return np.frombuffer(data, dtype.value).reshape(shape, order=order)


def _reconstruct(subtype, shape, kind):
    if subtype is not _NDArray or tuple(shape) != (0,):
        raise DatasetError(f"an array of type {subtype!r} made with shape {shape!r}")
    return _Array()


def _frombuffer(data, dtype, shape, order):
    array = _Array()
    array.value = _array(data, dtype, shape, order)
    return array


def _scalar(dtype, data):
    data = data.encode("latin1") if isinstance(data, str) else data
    return _array(data, dtype, (1,))[0]


def _encode(text, encoding):
    """Python 3 writes bytes this way in the protocols of Python 2."""
    if not isinstance(text, str) or encoding not in ("latin1", b"latin1"):
        raise DatasetError(f"_codecs.encode with encoding {encoding!r}")
    return text.encode("latin1")


def _bytes(*arguments):
    if arguments:
        raise DatasetError("bytes made of something else")
    return b""


_ALLOWED = {
    "numpy": {"dtype": _Dtype, "ndarray": _NDArray},
    "multiarray": {"_reconstruct": _reconstruct, "scalar": _scalar},
    "numeric": {"_frombuffer": _frombuffer},
    "_codecs": {"encode": _encode},
    "builtins": {"set": set, "frozenset": frozenset, "bytes": _bytes},
    "collections": {"OrderedDict": OrderedDict},
}
# numpy 2 renamed numpy.core, Python 3 __builtin__.
_MODULES = {
    "numpy.core.multiarray": "multiarray",
    "numpy._core.multiarray": "multiarray",
    "numpy.core.numeric": "numeric",
    "numpy._core.numeric": "numeric",
    "__builtin__": "builtins",
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module, name):
        allowed = _ALLOWED.get(_MODULES.get(module, module), {})
        if module in ("multiarray", "numeric") or name not in allowed:
            raise DatasetError(f"{module}.{name}")
        return allowed[name]


def load_pickle(file, name: str, encoding: str = "bytes"):
    """Reads one pickle.

    Args:
        file: open binary file.
        name: what the file is called in errors.
        encoding: how the strings of Python 2 are read, "bytes" or "latin1".

    Returns:
        Plain containers of plain values and arrays.

    Raises:
        DatasetError: when the pickle is damaged, or asks for anything else, naming what.
    """
    try:
        return _plain(_Unpickler(file, encoding=encoding).load())
    except DatasetError as error:
        raise DatasetError(
            f"{name}: this pickle asks for {error}, but only arrays and plain containers are "
            "allowed. Do not use it; get the file from its official source."
        ) from None
    except Exception as error:
        # A damaged pickle can fail in any way.
        raise DatasetError(
            f"{name} is truncated or damaged ({type(error).__name__}: {error}): get it again."
        ) from error


def text(value) -> str:
    """Returns a string that Python 2 or 3 may have pickled as bytes."""
    return value.decode("latin1") if isinstance(value, bytes) else str(value)


def named(value, *keys: str, name: str) -> list:
    """Returns the values of these keys of a pickled dictionary.

    Raises:
        DatasetError: when one is missing.
    """
    found = {text(key): v for key, v in value.items()} if isinstance(value, dict) else {}
    if absent := [key for key in keys if key not in found]:
        raise DatasetError(f"{name} holds no {', '.join(absent)}: is it the file as published?")
    return [found[key] for key in keys]


def _plain(value):
    """Replaces the stand-ins by what they stand for."""
    if isinstance(value, _Array | _Dtype):
        return value.value
    if isinstance(value, dict):
        return {key: _plain(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_plain(v) for v in value)
    return value
