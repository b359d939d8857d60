from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opsapi.playground.api.tables.ages import age, human_duration
from opsapi.playground.api.tables.columns import columns_of
from opsapi.playground.api.tables.pods import pod_cells
from opsapi.playground.kinds import Column, Kind, KindTable
from opsapi.playground.registry import Obj

NOW = datetime(2024, 1, 20, 15, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (-5, "<invalid>"),
        (0, "0s"),
        (119, "119s"),
        (120, "2m"),
        (150, "2m30s"),
        (600, "10m"),
        (3 * 3600 - 1, "179m"),
        (3 * 3600, "3h"),
        (3 * 3600 + 60, "3h1m"),
        (8 * 3600 + 60, "8h"),
        (48 * 3600, "2d"),
        (49 * 3600, "2d1h"),
        (8 * 86400 + 3600, "8d"),
        (729 * 86400, "729d"),
        (731 * 86400, "2y1d"),
        (9 * 365 * 86400, "9y"),
    ],
)
def test_durations_read_as_kubectl_shows_them(seconds: int, shown: str) -> None:
    assert human_duration(seconds) == shown


@given(st.integers(0, 10**9))
def test_a_duration_has_two_units_at_most(seconds: int) -> None:
    shown = human_duration(seconds)
    assert 1 <= sum(letter.isalpha() for letter in shown) <= 2


def test_an_object_without_a_time_is_of_unknown_age() -> None:
    assert age(None, NOW) == "<unknown>"
    assert age("2024-01-20T15:25:00Z", NOW) == "5m"


def pod(*states: Obj, phase: str = "Running", **meta: Any) -> Obj:
    statuses = [{"name": f"c{number}", "restartCount": 0, "state": {}, **one} for number, one in enumerate(states)]
    return {
        "metadata": {"name": "p", "creationTimestamp": "2024-01-20T15:00:00Z", **meta},
        "spec": {"containers": [{"name": one["name"]} for one in statuses]},
        "status": {"phase": phase, "containerStatuses": statuses},
    }


RUNNING = {"ready": True, "state": {"running": {"startedAt": "2024-01-20T15:00:00Z"}}}
CRASHING = {"state": {"waiting": {"reason": "CrashLoopBackOff"}}, "restartCount": 4}
KILLED = {"state": {"terminated": {"reason": "OOMKilled", "exitCode": 137}}}


@pytest.mark.parametrize(
    ("shown", "ready", "state"),
    [
        (pod(RUNNING, RUNNING), "2/2", "Running"),
        (pod(RUNNING, CRASHING), "1/2", "CrashLoopBackOff"),
        (pod(KILLED), "0/1", "OOMKilled"),
        (pod({"state": {"terminated": {"exitCode": 3}}}), "0/1", "ExitCode:3"),
        (pod({"state": {"terminated": {"exitCode": 0, "signal": 9}}}), "0/1", "Signal:9"),
        (pod({"state": {"waiting": {"reason": "ImagePullBackOff"}}}, phase="Pending"), "0/1", "ImagePullBackOff"),
        (pod(RUNNING, deletionTimestamp="2024-01-20T15:31:00Z"), "1/1", "Terminating"),
        (pod({"state": {"terminated": {"reason": "Completed", "exitCode": 0}}}, phase="Succeeded"), "0/1", "Completed"),
    ],
)
def test_a_pods_state_is_told_by_its_containers(shown: Obj, ready: str, state: str) -> None:
    cells = pod_cells(shown, NOW)
    assert cells[1:3] == [ready, state]


def test_init_containers_are_told_until_they_are_through() -> None:
    waiting = pod(RUNNING, phase="Pending")
    waiting["spec"]["initContainers"] = [{"name": "i0"}, {"name": "i1"}]
    done = {"name": "i0", "state": {"terminated": {"exitCode": 0}}}
    waiting["status"]["initContainerStatuses"] = [done, {"name": "i1", "state": {"running": {}}}]
    assert pod_cells(waiting, NOW)[2] == "Init:1/2"
    waiting["status"]["initContainerStatuses"][1] = {
        "name": "i1",
        "state": {"terminated": {"exitCode": 1, "reason": "Error"}},
    }
    assert pod_cells(waiting, NOW)[2] == "Init:Error"
    waiting["status"]["initContainerStatuses"][1] = {"name": "i1", "state": {"waiting": {"reason": "CrashLoopBackOff"}}}
    assert pod_cells(waiting, NOW)[2] == "Init:CrashLoopBackOff"


def test_restarts_say_when_the_last_one_was() -> None:
    ended = (NOW - timedelta(minutes=4)).strftime("%Y-%m-%dT%H:%M:%SZ")
    last = {"terminated": {"finishedAt": ended}}
    assert pod_cells(pod({**RUNNING, "restartCount": 3, "lastState": last}), NOW)[3] == "3 (4m ago)"


def test_every_kind_shows_as_many_cells_as_columns_even_when_empty() -> None:
    kinds = KindTable()
    for kind in kinds.storage_kinds():
        columns = columns_of(kind)
        cells = columns.cells({"kind": kind.kind, "metadata": {"name": "x"}}, NOW)
        assert len(cells) == len(columns.definitions), kind.kind
        assert "x" in [str(cell).split(" ")[0] for cell in cells]


@pytest.mark.parametrize(
    ("path", "kind", "shown"),
    [
        (".spec.size", "integer", 3),
        (".spec.nosuch", "string", None),
        (".spec.list[1]", "string", "b"),
        ('.status.conditions[?(@.type=="Ready")].status', "string", "True"),
        (".metadata.annotations.example\\.com/x", "string", "y"),
        (".metadata.creationTimestamp", "date", "30m"),
        (".spec.on", "boolean", True),
    ],
)
def test_a_printer_column_reads_its_json_path(path: str, kind: str, shown: Any) -> None:
    widget: Obj = {
        "metadata": {"name": "w", "creationTimestamp": "2024-01-20T15:00:00Z", "annotations": {"example.com/x": "y"}},
        "spec": {"size": 3, "list": ["a", "b"], "on": True},
        "status": {"conditions": [{"type": "Synced", "status": "False"}, {"type": "Ready", "status": "True"}]},
    }
    column = Column("C", kind, path)
    served = Kind("example.com", "v1", "Widget", "widgets", "widget", True, custom=True, columns=(column,))
    assert columns_of(served).cells(widget, NOW) == ["w", shown]
