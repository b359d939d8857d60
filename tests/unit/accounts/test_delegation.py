"""For whom an account may act."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opsapi.accounts.delegation import check_pattern, excess, may_act_for


@pytest.mark.parametrize(
    ("patterns", "name", "allowed"),
    [
        ([], "ann@example.com", False),
        (["ann@example.com"], "ann@example.com", True),
        (["ann@example.com"], "Ann@example.com", False),
        (["*@example.com"], "bob@example.com", True),
        (["*@example.com"], "bob@sub.example.com", False),
        (["*@example.com"], "@example.com", False),
        (["*@example.com"], "bob@example.com@evil.test", False),
        (["*"], "anybody", True),
        (["ann", "*@example.com"], "ann", True),
    ],
)
def test_patterns_allow_whom_they_name(patterns: list[str], name: str, allowed: bool) -> None:
    assert may_act_for(patterns, name) is allowed


@pytest.mark.parametrize("pattern", ["", "a*", "*example.com", "**", "*@*", "a b", "é", "x" * 129, "a\n"])
def test_what_is_no_pattern_is_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match="no name"):
        check_pattern(pattern)


PATTERNS = st.sampled_from(["*", "*@a.test", "*@b.test", "x@a.test", "y@b.test", "z"])


@given(st.lists(PATTERNS), st.lists(PATTERNS), st.sampled_from(["x@a.test", "y@a.test", "y@b.test", "z", "w"]))
def test_patterns_without_excess_allow_nobody_more(own: list[str], wanted: list[str], name: str) -> None:
    within = [pattern for pattern in wanted if pattern not in excess(own, wanted)]
    assert not may_act_for(within, name) or may_act_for(own, name)
