import numpy as np
import pytest

from mmaml_tf.arguments import real_number, whole_number
from mmaml_tf.seeds import derive_seed


@pytest.mark.parametrize("value", [3, np.int64(3), np.uint8(3)])
def test_integers_of_every_kind_are_whole_numbers(value):
    number = whole_number("tasks", value)
    assert number == 3
    assert type(number) is int


@pytest.mark.parametrize("value", [0, -1, np.int32(0), True, 2.0, "2", None, np.bool_(True)])
def test_whatever_else_is_refused_by_name(value):
    with pytest.raises(ValueError, match=r"tasks=.*: expected a whole number of at least 1\."):
        whole_number("tasks", value)


def test_the_least_value_is_the_callers():
    assert whole_number("seed", -5, least=None) == -5
    assert whole_number("step", 0, least=0) == 0
    with pytest.raises(ValueError, match=r"seed=1.5: expected a whole number\."):
        whole_number("seed", 1.5, least=None)


@pytest.mark.parametrize("value", [2**63, -(2**63) - 1, np.uint64(2**63)])
def test_numbers_that_tensorflow_cannot_hold_are_refused(value):
    with pytest.raises(ValueError, match=r"seed=.* at most 64 bits"):
        whole_number("seed", value, least=None)
    assert whole_number("seed", 2**63 - 1, least=None) == 2**63 - 1


@pytest.mark.parametrize("value", [0.5, np.float32(0.5), 1, np.int64(1), 0])
def test_numbers_of_every_kind_are_real(value):
    number = real_number("rate", value, 1)
    assert number == value
    assert type(number) is float


@pytest.mark.parametrize("value", [-0.1, 1.1, np.nan, np.inf, True, "1", None, 1j])
def test_numbers_that_are_none_are_refused_by_name(value):
    with pytest.raises(ValueError, match=r"rate=.*: expected a number from 0 to 1\."):
        real_number("rate", value, 1)


def test_numbers_without_a_bound_are_not_negative():
    with pytest.raises(ValueError, match=r"rate=-1: expected a finite number of at least 0\."):
        real_number("rate", -1)


@pytest.mark.parametrize("seed", [0.5, True, None, "0"])
def test_a_seed_that_is_not_whole_is_no_seed(seed):
    with pytest.raises(ValueError, match=r"seed=.*: expected a whole number\."):
        derive_seed(seed, "noise")
