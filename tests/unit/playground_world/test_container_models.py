"""Commands that behave as they read, and image references that fail as in life."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opsapi.playground.behaviour.model import CLEAN, ContainerModel, profile_problem
from opsapi.playground.behaviour.shell import run
from opsapi.playground.kubelet.images import image_id, parse_reference, pull


@pytest.mark.parametrize(
    ("command", "ends", "code", "lines"),
    [
        (["sh", "-c", "echo starting; sleep 30; exit 3"], 30.0, 3, ["starting"]),
        (["sh", "-c", "exit 1"], 0.0, 1, []),
        (["/bin/sh", "-c", "false || echo fallback && exit 4"], 0.0, 4, ["fallback"]),
        (["bash", "-c", "true && echo yes"], 0.0, 0, ["yes"]),
        (["sleep", "1d"], 86400.0, 0, []),
        (["sleep", "infinity"], math.inf, 0, []),
        (["sh", "-c", "echo a; while true; do date; sleep 5; done"], math.inf, 0, ["a"]),
        (["sh", "-c", "echo 'no space left' >&2; exit 28"], 0.0, 28, ["no space left"]),
        (["sh", "-c", "exec gunicorn app:main"], math.inf, 0, []),
        (["false"], 0.0, 1, []),
    ],
)
def test_a_command_does_what_it_says(command: list[str], ends: float, code: int, lines: list[str]) -> None:
    script = run(command, [])
    assert script is not None
    assert (script.ends_after, script.code) == (ends, code)
    assert [text for _, text in script.lines] == lines


def test_a_program_is_no_script() -> None:
    assert run(["/app/server"], ["--port", "80"]) is None
    assert run([], []) is None


@given(st.text(max_size=80))
def test_no_script_breaks_the_interpreter(text: str) -> None:
    script = run(["sh", "-c", text], [])
    assert script is not None
    assert script.ends_after >= 0


def model(container: dict[str, Any], **annotations: str) -> ContainerModel:
    pod = {"metadata": {"annotations": annotations}, "spec": {"containers": [container]}}
    return ContainerModel.of(pod, container)


def test_a_shell_image_without_a_command_ends_at_once() -> None:
    ended = model({"name": "a", "image": "busybox:1.36"}).exit({}, CLEAN)
    assert ended is not None
    assert ended.code == 0
    assert model({"name": "a", "image": "nginx:1.27"}).exit({}, CLEAN) is None


def test_a_probe_of_a_port_that_nobody_listens_on_is_refused() -> None:
    server = model({"name": "a", "image": "nginx", "ports": [{"name": "http", "containerPort": 80}]})
    good = {"httpGet": {"path": "/", "port": "http"}}
    assert server.probe("readiness", good, 60, CLEAN, "10.1.2.3") == (True, "")
    bad = {"httpGet": {"path": "/", "port": 8080}}
    assert server.probe("readiness", bad, 60, CLEAN, "10.1.2.3") == (
        False,
        'Get "http://10.1.2.3:8080/": dial tcp 10.1.2.3:8080: connect: connection refused',
    )


def test_an_unknown_profile_is_named() -> None:
    pod = {"metadata": {"annotations": {"playground.opsapi.dev/profile": "wbe"}}, "spec": {"containers": []}}
    assert "no built-in profile 'wbe'" in str(profile_problem(pod))


@pytest.mark.parametrize(
    ("image", "canonical"),
    [
        ("nginx", "docker.io/library/nginx:latest"),
        ("team/app:v2", "docker.io/team/app:v2"),
        ("registry.example:5000/a/b:1.0", "registry.example:5000/a/b:1.0"),
        ("ghcr.io/org/app@sha256:" + "a" * 64, "ghcr.io/org/app"),
    ],
)
def test_references_are_completed(image: str, canonical: str) -> None:
    reference = parse_reference(image)
    assert reference is not None
    assert reference.canonical == canonical
    assert "@sha256:" in image_id(image)


@pytest.mark.parametrize("image", ["", "UPPER/case:1", "a b", "nginx:", "nginx:ta g", "/nginx", "nginx@sha256:short"])
def test_what_is_no_reference_is_none(image: str) -> None:
    assert parse_reference(image) is None


@pytest.mark.parametrize(
    ("image", "words"),
    [
        ("nosuch/image:1", "pull access denied"),
        ("yourcompany/crw:latest", "pull access denied"),
        ("nginx:does-not-exist", "not found"),
        ("registry.example/app:1.0-typo", "not found"),
        ("registry.invalid/app:1", "no such host"),
    ],
)
def test_images_that_are_not_there_fail_to_pull(image: str, words: str) -> None:
    assert words in pull(image).error


@pytest.mark.parametrize("image", ["nginx:1.27", "redis:alpine", "app:v2", "ghcr.io/org/app:sha-1a2b3c4"])
def test_ordinary_images_pull(image: str) -> None:
    outcome = pull(image)
    assert outcome.error == ""
    assert 0.8 < outcome.seconds < 5
