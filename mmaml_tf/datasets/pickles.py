"""Reads pickles of arrays and plain containers, and refuses to run anything else in them."""

import io
import pickle

from mmaml_tf.datasets.archives import DatasetError

# Where NumPy's pickles, of version 1 and 2, find what makes an array.
_ALLOWED = {
    ("_codecs", "encode"),
    ("collections", "OrderedDict"),
    ("numpy", "dtype"),
    ("numpy", "ndarray"),
    *(
        (f"numpy.{core}.{module}", name)
        for core in ("core", "_core")
        for module, name in (
            ("multiarray", "_reconstruct"),
            ("multiarray", "scalar"),
            ("numeric", "_frombuffer"),
        )
    ),
}


def loads(data: bytes, source: str):
    """Returns what a pickle holds, text of Python 2 decoded as Latin-1.

    Args:
        data: the pickle.
        source: where it comes from, for messages.

    Raises:
        DatasetError: if it holds anything but arrays and plain containers, or is damaged.
    """
    try:
        return _Unpickler(io.BytesIO(data), encoding="latin1").load()
    except _RefusedError as error:
        raise DatasetError(
            f"{source} is a pickle that asks for {error}, which no data needs; it was not loaded. "
            "Get the file again from its publisher."
        ) from None
    # A damaged pickle may raise nearly anything.
    except Exception as error:
        raise DatasetError(f"{source} cannot be read ({error}); it is damaged.") from error


class _RefusedError(Exception):
    pass


class _Unpickler(pickle.Unpickler):
    def find_class(self, module, name):
        if (module, name) not in _ALLOWED:
            raise _RefusedError(f"{module}.{name}")
        return super().find_class(module.replace("numpy.core.", "numpy._core."), name)

    def persistent_load(self, pid):
        raise _RefusedError(f"the external object {pid!r}")
