"""The specification's examples state some arithmetic; ours comes to the same."""

import pytest

from opsapi.applications.autoscaling import replicas_for
from opsapi.kit.quantity import format_bytes, format_cpu, percentage, whole


@pytest.mark.parametrize(
    ("part", "total", "stated"),
    [
        (8.5, 16, 53.1),
        (whole("24Gi"), whole("32Gi"), 75.0),
        (whole("450Gi"), whole("1Ti"), 43.9),
        (whole("187Mi"), whole("512Mi"), 36.5),
        (45.2, 100, 45.2),
    ],
)
def test_a_stated_percentage_comes_out(part: float, total: float, stated: float) -> None:
    assert percentage(part, total) == stated


def test_quantities_are_written_as_the_examples_write_them() -> None:
    assert format_cpu(8500) == "8.5"
    assert format_cpu(3800) == "3.8"
    assert [format_bytes(whole(text)) for text in ("14.5Gi", "450Gi", "1Ti", "24Gi")] == [
        "14.5Gi",
        "450Gi",
        "1Ti",
        "24Gi",
    ]


def test_autoscaling_comes_to_the_stated_replicas() -> None:
    """85.3 % on three pods with thresholds of 80 and 30 is 5 pods."""
    assert replicas_for(3 * 85.3 / 100, (80 + 30) / 2) == 5
