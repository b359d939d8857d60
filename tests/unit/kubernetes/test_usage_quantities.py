"""The fast reading of metrics equals the exact one."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opsapi.adapters.kubernetes.usage import usage_bytes, usage_millicores
from opsapi.kit.quantity import parse_quantity


@settings(deadline=None)
@given(number=st.integers(0, 10**15), suffix=st.sampled_from(["n", "u", "m", ""]))
def test_cpu_usage_is_what_the_quantity_says(number: int, suffix: str) -> None:
    text = f"{number}{suffix}"
    assert usage_millicores(text) == pytest.approx(float(parse_quantity(text) * 1000))


@settings(deadline=None)
@given(number=st.integers(0, 10**9), suffix=st.sampled_from(["Ki", "Mi", "Gi", "k", "M", "G", ""]))
def test_memory_usage_is_what_the_quantity_says(number: int, suffix: str) -> None:
    text = f"{number}{suffix}"
    assert usage_bytes(text) == int(parse_quantity(text))


@pytest.mark.parametrize("text", ["", "n", "Ki", "12x", "-", "1.2.3Mi"])
def test_what_is_no_quantity_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a quantity"):
        usage_millicores(text)
    with pytest.raises(ValueError, match="not a quantity"):
        usage_bytes(text)
