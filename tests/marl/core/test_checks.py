"""Every check names the key, the value and the allowed values, and accepts values on an inclusive bound."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest

from marl.core.checks import require_at_least, require_choice, require_positive, require_share, require_within
from marl.core.types import ConfigError

ONE_OF = partial(require_choice, "algo", ("a", "b"))


@pytest.mark.parametrize(
    ("check", "says"),
    [
        (lambda: require_at_least("train", 1, n_envs=1, total_steps=0), "train.total_steps=0 must be at least 1"),
        (lambda: require_at_least("", 0, or_null=True, seed=-1), "seed=-1 must be at least 0, or null"),
        (lambda: require_at_least("x", 1, a=float("nan")), "x.a=nan must be at least 1"),
        (lambda: require_positive("learner", lr=0.0), "learner.lr=0.0 must be above 0"),
        (lambda: require_positive("learner", lr=None), "learner.lr=None must be above 0"),
        (lambda: require_share("attack", p=1.5), "attack.p=1.5 must be within [0, 1]"),
        (lambda: require_share("attack", p=float("nan")), "attack.p=nan must be within [0, 1]"),
        (lambda: require_within("a", 0, 1, ends="(]", p=0), "a.p=0 must be within (0, 1]"),
        (lambda: require_within("a", 0, 1, ends="[)", p=1), "a.p=1 must be within [0, 1)"),
        (
            lambda: require_within("attack", 0, 3, note="the team's size", or_null=True, agents=4),
            "attack.agents=4 must be within [0, 3], the team's size, or null",
        ),
        (lambda: ONE_OF(mode="c"), "algo.mode=c is not known; choose one of a, b"),
        (lambda: ONE_OF(or_null=True, mode=""), "algo.mode= is not known; choose one of a, b, or null"),
    ],
)
def test_a_bad_value_is_one_line_with_key_value_and_what_was_allowed(check: Callable[[], None], says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check()
    assert str(caught.value) == says


def test_values_on_an_included_bound_and_null_where_it_is_allowed_pass() -> None:
    require_at_least("x", 1, a=1, b=2.5)
    require_at_least("x", 1, or_null=True, a=None)
    require_positive("x", or_null=True, a=None, b=1e-9)
    require_share("x", a=0, b=1, c=0.5)
    require_within("x", 0, 1, ends="()", a=0.5)
    ONE_OF(mode="a")
    ONE_OF(or_null=True, mode=None)
