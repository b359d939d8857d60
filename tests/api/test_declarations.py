"""What holds for every endpoint that the service declares."""

import pytest

from opsapi.kit.endpoint import Endpoint
from opsapi.wiring import DECLARATIONS


@pytest.mark.parametrize(
    "declared",
    [one for one in DECLARATIONS if one.method == "GET" and not one.streams],
    ids=lambda declared: declared.path,
)
def test_every_read_lets_its_caller_choose_fields(declared: Endpoint) -> None:
    assert declared.fields
