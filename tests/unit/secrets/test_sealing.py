import base64
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opsapi.adapters.secrets.sealing import AesGcmSealer, key_from
from opsapi.workspaces.ports import CannotUnseal, Sealed

KEY, OTHER = os.urandom(32), os.urandom(32)
SEALER = AesGcmSealer([KEY])


@given(st.binary(max_size=500), st.text(max_size=40))
def test_what_was_sealed_opens_where_it_was_bound(plain: bytes, bound_to: str) -> None:
    sealed = SEALER.seal(plain, bound_to=bound_to)
    assert SEALER.unseal(sealed, bound_to=bound_to) == plain
    with pytest.raises(CannotUnseal):
        SEALER.unseal(sealed, bound_to=bound_to + "x")


@given(st.integers(0, 10_000), st.integers(1, 255))
def test_an_altered_ciphertext_does_not_open(position: int, flip: int) -> None:
    sealed = SEALER.seal(b"a kubeconfig with a token", bound_to="ws-1")
    altered = bytearray(sealed.ciphertext)
    altered[position % len(altered)] ^= flip
    with pytest.raises(CannotUnseal):
        SEALER.unseal(Sealed(sealed.key_id, bytes(altered)), bound_to="ws-1")


@given(st.integers(0, 40))
def test_a_cut_ciphertext_does_not_open(length: int) -> None:
    sealed = SEALER.seal(b"a kubeconfig with a token", bound_to="ws-1")
    with pytest.raises(CannotUnseal):
        SEALER.unseal(Sealed(sealed.key_id, sealed.ciphertext[:length]), bound_to="ws-1")


def test_the_same_text_is_never_sealed_the_same_way() -> None:
    assert len({SEALER.seal(b"same", bound_to="ws-1").ciphertext for _ in range(50)}) == 50


def test_every_key_opens_and_the_first_seals() -> None:
    old = SEALER.seal(b"text", bound_to="ws-1")
    rotated = AesGcmSealer([OTHER, KEY])
    assert rotated.unseal(old, bound_to="ws-1") == b"text"
    assert rotated.key_id != SEALER.key_id
    with pytest.raises(CannotUnseal):
        SEALER.unseal(rotated.seal(b"text", bound_to="ws-1"), bound_to="ws-1")


@pytest.mark.parametrize("text", ["", "short", "!" * 44, base64.b64encode(b"x" * 31).decode()])
def test_a_bad_key_is_refused_without_being_shown(text: str) -> None:
    with pytest.raises(ValueError, match="encryption key must") as caught:
        key_from(text)
    assert not text or text not in str(caught.value)


def test_a_key_reads_as_openssl_writes_it() -> None:
    assert key_from(base64.b64encode(KEY).decode() + "\n") == KEY
    with pytest.raises(ValueError, match="at least one key"):
        AesGcmSealer([])
