"""The policy's own file: read again when it changes; a mistake leaves in force what was."""

import os
from pathlib import Path

import pytest

from opsapi.policy.book import PolicyBook
from opsapi.settings.policy_file import PolicyFile, read_policy
from opsapi.settings.source import InvalidConfiguration
from support.acting import SetClock


class Watched:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.clock = SetClock()
        self.write("max_replicas: 10\n")
        self.book = PolicyBook(read_policy(path), self.clock.now())
        self.file = PolicyFile(path, self.book, self.clock)

    def write(self, text: str) -> None:
        """As editors and Kubernetes' mounts do: another file under the same name."""
        part = self.path.with_suffix(".part")
        part.write_text(text)
        os.replace(part, self.path)


@pytest.fixture
def watched(tmp_path: Path) -> Watched:
    return Watched(tmp_path / "policy.yaml")


def test_what_is_unchanged_is_not_read_again(watched: Watched) -> None:
    before = watched.book.settings
    assert not watched.file.look()
    assert watched.book.settings is before


def test_a_changed_file_is_in_force_at_once(watched: Watched) -> None:
    watched.clock.advance(60)
    watched.write("max_replicas: 20\nlimits:\n  cooldown_seconds: 60\n")
    assert watched.file.look()
    settings = watched.book.settings
    assert (settings.max_replicas, settings.limits.cooldown_seconds) == (20, 60)
    assert watched.book.state.read_at == watched.clock.now()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("max_replicas: many\n", "max_replicas"),
        ("max_replica: 5\n", "did you mean 'max_replicas'"),
        ("limits:\n  cooldown_seconds: -1\n", "limits.cooldown_seconds"),
        ("waivers:\n  - {account: sa-1, rules: [max_replicas]}\n", "cannot be waived"),
        ("ranges:\n  cooldown_seconds: {minimum: 9, maximum: 1}\n", "exceeds maximum"),
        ("max_replicas: 5\n  broken: [\n", "not YAML"),
        ("- a\n- list\n", "expected keys"),
    ],
)
def test_a_mistake_changes_nothing_and_says_so(watched: Watched, text: str, said: str) -> None:
    before, read_at = watched.book.settings, watched.book.state.read_at
    watched.write(text)
    assert not watched.file.look()
    assert watched.book.settings is before
    assert watched.book.state.read_at == read_at
    assert any(said in problem for problem in watched.book.state.problems), watched.book.state.problems
    watched.write("max_replicas: 30\n")
    assert watched.file.look()
    assert (watched.book.settings.max_replicas, watched.book.state.problems) == (30, ())


def test_a_file_that_is_gone_is_a_mistake_not_an_empty_policy(watched: Watched) -> None:
    watched.path.unlink()
    assert not watched.file.look()
    assert watched.book.settings.max_replicas == 10
    assert "no such file" in watched.book.state.problems[0]


def test_a_mistake_at_the_start_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text("max_replicas: 0\n")
    with pytest.raises(InvalidConfiguration):
        read_policy(path)
