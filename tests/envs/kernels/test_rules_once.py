"""A rule is compiled once: numba alone would make a version for every integer type and constant it is called with."""

from __future__ import annotations

import numba
import numpy as np
import pytest
from numba import njit, types

from envs.kernels.compiled import part, rule


def double(x):
    return x + x


def call_with_all(doubled):
    """Return a kernel that calls ``doubled`` with an int32, an int64, a constant and numbers that are no integers."""

    @njit
    def kernel(small, large):
        return doubled(small), doubled(large), doubled(3), doubled(2.5), doubled(np.uint64(2**63 - 1))

    return kernel


NUMBERS = (np.int32(2**30), np.int64(5))
DOUBLED = (2**31, 10, 6, 5.0, 2**64 - 2)


@pytest.mark.parametrize("decorator", [rule, part])
def test_integers_and_constants_share_a_version(decorator):
    doubled = decorator(double)
    assert call_with_all(doubled)(*NUMBERS) == DOUBLED
    assert {kinds[0] for kinds in doubled.overloads} == {types.int64, types.float64, types.uint64}


def test_numba_alone_would_compile_it_for_each():
    doubled = njit(double)
    assert call_with_all(doubled)(*NUMBERS) == DOUBLED
    assert len(doubled.overloads) == 5, "if this fails, numba has learnt it and compiled._compile_once may go"


def test_python_may_call_a_rule_before_and_after_kernels_have():
    doubled = rule(double)
    assert doubled(4) == 8
    assert call_with_all(doubled)(*NUMBERS) == DOUBLED
    assert doubled(np.int32(7)) == 14 and doubled(1.5) == 3.0


def test_a_rule_that_allocates_does_not_compile():
    @rule
    def many(n):
        return np.zeros(n)

    with pytest.raises(numba.errors.NumbaError):
        njit(lambda n: many(n)[0])(3)
