"""Cursors: read back exactly, refused when anything about them is not as we wrote it."""

from datetime import UTC, datetime

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from opsapi.kit.cursor import decode_cursor, encode_cursor
from opsapi.kit.errors import ValidationFailed


class Position(msgspec.Struct, frozen=True):
    at: datetime
    id: str


class Other(msgspec.Struct, frozen=True):
    number: int


POSITIONS = st.builds(Position, st.datetimes(timezones=st.just(UTC)), st.text(max_size=40))
ONE = encode_cursor("list", Position(datetime(2026, 1, 1, tzinfo=UTC), "a-1"))


@given(POSITIONS)
def test_a_position_is_read_back_exactly(position: Position) -> None:
    assert decode_cursor("list", encode_cursor("list", position), Position) == position


@given(POSITIONS)
def test_a_cursor_can_stand_in_a_query_as_it_is(position: Position) -> None:
    text = encode_cursor("list", position)
    assert text.isascii()
    assert text.replace("-", "a").replace("_", "a").isalnum()


@given(st.integers(0, len(ONE) - 1), st.sampled_from("abcXYZ019-_=+/ é\x00"))
def test_one_changed_character_is_noticed(place: int, char: str) -> None:
    changed = ONE[:place] + char + ONE[place + 1 :]
    if changed != ONE:
        with pytest.raises(ValidationFailed) as caught:
            decode_cursor("list", changed, Position)
        assert "cursor" in str(caught.value)


@given(st.text(max_size=100))
def test_no_text_is_taken_for_a_cursor_and_none_breaks_the_reader(text: str) -> None:
    with pytest.raises(ValidationFailed):
        decode_cursor("list", text, Position)


def test_a_cursor_of_another_list_or_shape_is_refused() -> None:
    with pytest.raises(ValidationFailed):
        decode_cursor("other list", ONE, Position)
    with pytest.raises(ValidationFailed):
        decode_cursor("list", ONE, Other)


def test_a_cut_or_endless_cursor_is_refused() -> None:
    for text in (ONE[:-1], ONE + "A", ONE * 100, ONE + "=="):
        with pytest.raises(ValidationFailed):
            decode_cursor("list", text, Position)
