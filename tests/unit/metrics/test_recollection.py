"""The short memory of metrics.k8s.io: bounded, by the minute, and honest about where it begins."""

from datetime import UTC, datetime, timedelta

import pytest

from opsapi.adapters.kubernetes.recollection import Recollection
from opsapi.telemetry.model import Span, WorkloadSelector
from opsapi.workspaces.ports import ContainerUsage, PodUsage

AT = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
WEB = WorkloadSelector("StatefulSet", "shop", "web")
MIB = 2**20
MINUTE = timedelta(minutes=1)


def usage(at: datetime, cpu: float = 100.0, memory: int = MIB, **more: tuple[float, int]) -> PodUsage:
    held = {"app": (cpu, memory), **more}
    return PodUsage({name: ContainerUsage(*figures) for name, figures in held.items()}, at)


def sweep(memory: Recollection) -> None:
    for _ in memory.sweep():
        pass


def test_a_minute_holds_the_mean_of_cpu_and_the_peak_of_memory() -> None:
    memory = Recollection()
    for second, cpu, held in ((0, 100.0, 3 * MIB), (15, 200.0, 7 * MIB), (15, 999.0, 99 * MIB), (45, 600.0, MIB)):
        memory.add("shop", "web-0", usage(AT + timedelta(seconds=second), cpu, held))
    (series,) = memory.series(WEB, Span(AT - MINUTE, AT + MINUTE, MINUTE))
    assert (series.at, series.cpu_millicores, series.memory_bytes) == (
        ((AT + MINUTE).timestamp(),),
        (300.0,),
        (7 * MIB,),
    )


def test_a_reading_counts_in_the_step_that_ends_with_it() -> None:
    memory = Recollection()
    for minute in range(10):
        memory.add("shop", "web-0", usage(AT + minute * MINUTE, cpu=minute * 10.0))
    (series,) = memory.series(WEB, Span(AT, AT + 9 * MINUTE, 3 * MINUTE))
    assert series.at == tuple((AT + minutes * MINUTE).timestamp() for minutes in (0, 3, 6, 9))
    assert series.cpu_millicores == (0.0, 20.0, 50.0, 80.0)


def test_readings_out_of_order_and_seen_twice_change_nothing() -> None:
    memory = Recollection()
    for minute in (5, 5, 3):
        memory.add("shop", "web-0", usage(AT + minute * MINUTE, cpu=minute * 1.0))
    (series,) = memory.series(WEB, Span(AT, AT + 9 * MINUTE, MINUTE))
    assert series.cpu_millicores == (5.0,)


def test_six_hours_are_kept_and_no_more() -> None:
    memory = Recollection()
    for minute in range(24 * 60):
        memory.add("shop", "web-0", usage(AT + minute * MINUTE))
    (series,) = memory.series(WEB, Span(AT, AT + timedelta(days=1), MINUTE))
    assert 360 <= len(series.at) <= 376
    assert series.at[-1] == (AT + timedelta(minutes=24 * 60 - 1)).timestamp()


def test_pods_that_are_gone_stay_for_six_hours_and_then_leave_no_trace() -> None:
    memory = Recollection()
    memory.add("shop", "web-0", usage(AT))
    for hour, there in ((1, 2), (5, 2), (7, 1)):
        memory.add("shop", "web-1", usage(AT + timedelta(hours=hour)))
        sweep(memory)
        assert memory.containers == there
    assert memory.since == AT


def test_a_full_memory_makes_room_from_the_dead_and_says_when_there_is_none() -> None:
    memory = Recollection(most=2)
    memory.add("shop", "web-0", usage(AT))
    memory.add("shop", "web-1", usage(AT))
    memory.add("shop", "web-2", usage(AT))
    assert (memory.containers, memory.overflowing) == (2, True)
    assert [one.pod for one in memory.series(WEB, Span(AT - MINUTE, AT, MINUTE))] == ["web-0", "web-1"]
    later = AT + timedelta(minutes=10)
    memory.add("shop", "web-1", usage(later))
    sweep(memory)
    assert (memory.containers, memory.overflowing) == (1, False)
    memory.add("shop", "web-2", usage(later))
    assert memory.containers == 2


@pytest.mark.parametrize("at", [datetime(1950, 1, 1, tzinfo=UTC), datetime(2300, 1, 1, tzinfo=UTC)])
def test_readings_centuries_off_are_not_remembered(at: datetime) -> None:
    memory = Recollection()
    memory.add("shop", "web-0", usage(at))
    assert (memory.containers, memory.since) == (0, None)


def test_memory_beyond_four_tebibytes_does_not_overflow() -> None:
    memory = Recollection()
    memory.add("shop", "web-0", usage(AT, memory=2**60))
    (series,) = memory.series(WEB, Span(AT - MINUTE, AT, MINUTE))
    assert series.memory_bytes == ((2**32 - 1) * 1024,)
