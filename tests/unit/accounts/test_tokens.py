"""A token's text."""

import re
import zlib

from hypothesis import given
from hypothesis import strategies as st

from opsapi.accounts.tokens import new_secret, sha256, well_formed

ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


def test_a_new_token_has_the_form_that_scanners_look_for() -> None:
    secret = new_secret()
    assert re.fullmatch(r"opsa_[0-9A-Za-z]{38}", secret)
    assert well_formed(secret)


def test_new_tokens_differ() -> None:
    assert len({new_secret() for _ in range(100)}) == 100


def test_the_checksum_is_the_crc_of_all_before_it_in_base_62() -> None:
    secret = new_secret()
    number = 0
    for char in secret[-6:]:
        number = number * 62 + ALPHABET.index(char)
    assert number == zlib.crc32(secret[:-6].encode())


def test_what_is_stored_is_the_sha_256_of_the_whole_text() -> None:
    # The digest of "abc" from FIPS 180-4's examples.
    assert sha256("abc").hex() == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


@given(st.integers(0, 42), st.sampled_from(ALPHABET + "-_é \n"))
def test_one_wrong_character_anywhere_is_noticed(place: int, char: str) -> None:
    secret = new_secret()
    changed = secret[:place] + char + secret[place + 1 :]
    assert well_formed(changed) is (changed == secret)


@given(st.text(max_size=60))
def test_no_other_text_is_taken_for_a_token(text: str) -> None:
    assert not well_formed(text)


@given(st.integers(0, 41))
def test_swapped_neighbours_are_noticed(place: int) -> None:
    secret = new_secret()
    swapped = secret[:place] + secret[place + 1] + secret[place] + secret[place + 2 :]
    assert well_formed(swapped) is (swapped == secret)
