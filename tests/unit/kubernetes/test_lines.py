"""Lines are the same however the bytes are cut."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opsapi.adapters.kubernetes.lines import LineSplitter, LineTooLong


@settings(deadline=None)
@given(
    lines=st.lists(st.binary(max_size=40).map(lambda raw: raw.replace(b"\n", b"")), max_size=20),
    cuts=st.lists(st.integers(0, 900), max_size=30),
    ended=st.booleans(),
)
def test_lines_are_the_same_however_they_are_cut(lines: list[bytes], cuts: list[int], ended: bool) -> None:
    whole = b"".join(line + b"\n" for line in lines) + (b"" if ended else b"tail")
    places = [0, *sorted(min(cut, len(whole)) for cut in cuts), len(whole)]
    splitter = LineSplitter(10_000)
    found = [line for start, end in pairwise(places) for line in splitter.feed(whole[start:end])]
    assert found == [line for line in lines if line.strip()]
    assert splitter.pending == (0 if ended else len(b"tail"))


def test_a_line_without_end_is_given_up_at_the_limit() -> None:
    splitter = LineSplitter(100)
    list(splitter.feed(b"x" * 60))
    with pytest.raises(LineTooLong):
        list(splitter.feed(b"x" * 60))
