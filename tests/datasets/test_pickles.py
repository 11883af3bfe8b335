"""Pickles build arrays and plain containers in every protocol, and nothing else."""

import collections
import datetime
import io
import os
import pickle
import warnings

import numpy as np
import pytest

from mmaml_tf.datasets.errors import DatasetError
from mmaml_tf.datasets.pickles import load_pickle, named

ARRAYS = [
    np.arange(24, dtype=np.uint8).reshape(2, 3, 4),
    np.asfortranarray(np.arange(6, dtype=np.float64).reshape(2, 3)),
    np.arange(5, dtype=">i4"),
    np.array([True, False]),
    np.array(["a", "bcd"]),
    np.array([b"a", b"bcd"]),
    np.array(3.5, np.float32),
    np.empty((0, 3), np.int64),
    np.arange(10)[::3],
]


def load(content, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return load_pickle(io.BytesIO(content), "some.pkl", **options)


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("old", [False, True])
def test_arrays_in_every_protocol_of_numpy_1_and_2(protocol, old):
    for array in ARRAYS:
        content = pickle.dumps(array, protocol=protocol)
        if old and protocol < 4:
            content = content.replace(b"numpy._core", b"numpy.core")
        elif old:
            # The names of protocol 4 have their length before them, and come in frames.
            names = (b"numpy._core.multiarray", b"numpy._core.numeric")
            for name in names:
                short = name.replace(b"_core", b"core")
                content = content.replace(
                    b"\x8c" + bytes([len(name)]) + name, b"\x8c" + bytes([len(short)]) + short
                )
            content = unframed(content)
        result = load(content)
        assert type(result) is np.ndarray and result.dtype == array.dtype
        np.testing.assert_array_equal(result, array)


def unframed(content):
    """Drops the frame, whose length no longer fits."""
    assert content[2:3] == b"\x95"
    return content[:2] + content[11:]


@pytest.mark.parametrize("protocol", range(6))
def test_plain_containers(protocol):
    value = {
        "text": ["a", ("b", None, True), {1.5, 2}],
        b"bytes": [b"", b"\x00\xff"],
        3: np.float32(2.5),
        "dtype": np.dtype("<i2"),
        "ordered": collections.OrderedDict(a=1),
        "frozen": frozenset({1}),
    }
    if protocol < 3:
        # Python 2's names, which is what these protocols are for.
        assert load(pickle.dumps(value, protocol), encoding="latin1") == value
    assert load(pickle.dumps(value, protocol)) == value


@pytest.mark.parametrize("encoding", ["bytes", "latin1"])
def test_arrays_of_python_2(encoding):
    # pickle.dumps({'data': numpy.array([[1, 255]], 'u1')}, protocol=2) of Python 2 and numpy 1
    content = (
        b"\x80\x02}q\x00U\x04dataq\x01cnumpy.core.multiarray\n_reconstruct\nq\x02cnumpy\nndarray\n"
        b"q\x03K\x00\x85q\x04U\x01bq\x05\x87q\x06Rq\x07(K\x01K\x01K\x02\x86q\x08cnumpy\ndtype\nq\t"
        b"U\x02u1q\nK\x00K\x01\x87q\x0bRq\x0c(K\x03U\x01|q\rNNNJ\xff\xff\xff\xffJ\xff\xff\xff\xff"
        b"K\x00tq\x0eb\x89U\x02\x01\xffq\x0ftq\x10bs."
    )
    (data,) = named(load(content, encoding=encoding), "data", name="some.pkl")
    np.testing.assert_array_equal(data, np.array([[1, 255]], np.uint8))


class Reduced:
    def __init__(self, *reduction):
        self.reduction = reduction

    def __reduce__(self):
        return self.reduction


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize(
    ("value", "refused"),
    [
        (Reduced(os.system, ("false",)), r"(posix|nt)\.system"),
        (Reduced(eval, ("1",)), r"(builtins|__builtin__)\.eval"),
        (Reduced(getattr, ({}, "clear")), r"(builtins|__builtin__)\.getattr"),
        (Reduced(np.load, ("x",)), r"numpy\.load|numpy.*\.load"),
        (datetime.date(2020, 1, 1), r"datetime\.date"),
        (np.array([object, None]), "dtype 'O8'"),
        (np.zeros(2, [("a", "i4")]), "dtype 'V4'"),
        (Reduced(bytes, (10**6,)), "bytes made of something else"),
    ],
)
def test_anything_else_is_refused_by_name(value, refused, protocol, monkeypatch):
    content = pickle.dumps({"data": [value]}, protocol)
    monkeypatch.setattr(os, "system", lambda command: pytest.fail("the pickle ran a command"))
    with pytest.raises(DatasetError, match=rf"some\.pkl: this pickle asks for .*({refused})"):
        load(content)


HOSTILE = {
    "an array larger than its data": b"cnumpy._core.multiarray\n_reconstruct\n(cnumpy\nndarray\n"
    b"(I0\ntS'b'\ntR(I1\n(I1000000000000\ntcnumpy\ndtype\n(S'u1'\nI0\nI1\ntRI00\nS'x'\ntb.",
    "an array made at once": b"cnumpy._core.multiarray\n_reconstruct\n(cnumpy\nndarray\n"
    b"(I1000000000000\ntS'b'\ntR.",
    "the class itself called": b"cnumpy\nndarray\n((I1000000000000\ntt R.",
    "an inner name": b"cmultiarray\nscalar\n.",
    "a dotted name": b"\x80\x04\x8c\x05numpy\x8c\x0ddtype.__new__\x93.",
    "no pickle": b"<html>not found</html>",
    "nothing": b"",
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_pickles(kind):
    with pytest.raises(DatasetError, match=r"some\.pkl"):
        load(HOSTILE[kind])


def test_damaged_pickles():
    content = pickle.dumps({"data": np.arange(100)}, protocol=4)
    for length in range(0, len(content), 7):
        with pytest.raises(DatasetError, match=r"some\.pkl is truncated or damaged"):
            load(content[:length])
    rng = np.random.default_rng(0)
    for _ in range(300):
        altered = bytearray(content)
        altered[rng.integers(60)] = rng.integers(256)
        try:
            load(bytes(altered))
        except DatasetError:
            continue


def test_dtype_flags_are_not_taken_from_the_pickle():
    # With these flags numpy would follow the numbers as if they were pointers.
    content = pickle.dumps(np.arange(4, dtype="<u8"), protocol=2)
    assert content.count(b"J\xff\xff\xff\xffK\x00t") == 1
    content = content.replace(b"J\xff\xff\xff\xffK\x00t", b"J\xff\xff\xff\xffK\x3ft")
    result = load(content)
    assert not result.dtype.hasobject and result.tolist() == [0, 1, 2, 3]


def test_missing_keys_are_named():
    with pytest.raises(DatasetError, match=r"some\.pkl holds no labels"):
        named({b"data": 1}, "data", "labels", name="some.pkl")
