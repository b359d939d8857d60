import re

from hypothesis import given
from hypothesis import strategies as st

from opsapi.kit.ids import new_id, stable_id


def test_new_ids_are_unlike_each_other_and_url_safe() -> None:
    made = {new_id("op") for _ in range(1000)}
    assert len(made) == 1000
    assert all(re.fullmatch(r"op-[0-9a-z]{16}", one) for one in made)


def test_a_stable_id_is_the_same_everywhere() -> None:
    assert stable_id("app", "ws-1", "shop", "Deployment", "web") == "app-wp3b0nb5tdcrd8x6"


@given(st.lists(st.text(max_size=5), min_size=2, max_size=4), st.lists(st.text(max_size=5), min_size=2, max_size=4))
def test_other_parts_make_another_id_even_when_they_join_alike(one: list[str], other: list[str]) -> None:
    assert (stable_id("app", *one) == stable_id("app", *other)) == (one == other)
