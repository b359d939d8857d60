"""Everything wrong with a configuration is said at once, by key, value and what is allowed."""

from pathlib import Path
from typing import Annotated

import msgspec
import pytest
from msgspec import Meta

from opsapi.kit.secret import Secret
from opsapi.settings.source import InvalidConfiguration, load


class Server(msgspec.Struct, frozen=True, kw_only=True):
    host: str = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535)] = 8080
    allowed: tuple[str, ...] = ()
    tls: bool = False
    certificate: Path | None = None


class Item(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    weight: float = 1.0


class Model(msgspec.Struct, frozen=True, kw_only=True):
    key: Secret
    server: Server = Server()
    items: tuple[Item, ...] = ()


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "opsapi.yaml"
    path.write_text(text)
    return path


def problems(path: Path | None, environment: dict[str, str]) -> list[str]:
    with pytest.raises(InvalidConfiguration) as caught:
        load(Model, path, environment)
    return caught.value.problems


def test_the_file_and_the_environment_make_one_whole_and_the_environment_wins(tmp_path: Path) -> None:
    path = write(
        tmp_path, "key: abc\nserver: {port: 1, host: '::1', certificate: tls/c.pem}\nitems: [{id: a, weight: 2}]\n"
    )
    model = load(
        Model, path, {"OPSAPI_SERVER__PORT": "99", "OPSAPI_SERVER__ALLOWED": "10.0.0.0/8, ::1", "HOME": "/root"}
    )
    assert model.server == Server(
        host="::1", port=99, allowed=("10.0.0.0/8", "::1"), certificate=tmp_path / "tls/c.pem"
    )
    assert model.items == (Item(id="a", weight=2.0),)
    assert model.key.reveal() == "abc"


def test_every_problem_is_named_at_once_with_key_value_and_what_is_allowed(tmp_path: Path) -> None:
    path = write(tmp_path, "server: {port: 70000, hosst: x, tls: 'yes'}\nitems: [{weight: heavy}]\n")
    found = problems(path, {"OPSAPI_SERVER__HOST": ""})
    assert "key: missing; expected a non-empty text" in found
    assert "server.port: 70000 is not allowed; expected a whole number from 0 to 65535" in found
    assert "server.hosst: unknown key; did you mean 'host'?" in found
    assert "server.tls: 'yes' is not allowed; expected true or false" in found
    assert "items[0].weight: 'heavy' is not allowed; expected a number" in found
    assert "items[0].id: missing; expected a text" in found


def test_a_wrong_variable_is_named_as_it_was_written() -> None:
    found = problems(None, {"OPSAPI_KEY": "k", "OPSAPI_SERVER__PORT": "many", "OPSAPI_SERVR__PORT": "1"})
    assert "OPSAPI_SERVER__PORT (server.port): 'many' is not allowed; expected a whole number from 0 to 65535" in found
    assert any(line.startswith("servr: unknown key; did you mean 'server'?") for line in found)


def test_a_secret_comes_from_a_file_and_is_shown_nowhere(tmp_path: Path) -> None:
    (tmp_path / "key.txt").write_text("s3cr3t\n")
    model = load(Model, write(tmp_path, "key_file: key.txt\n"), {})
    assert model.key.reveal() == "s3cr3t"
    assert "s3cr3t" not in f"{model!r} {model.key} {model.key!r}"


def test_a_secret_given_twice_or_not_to_be_read_is_said(tmp_path: Path) -> None:
    (tmp_path / "key.txt").write_text("s3cr3t")
    assert "key: give it or key_file, not both" in problems(write(tmp_path, "key: a\nkey_file: key.txt\n"), {})
    missing = problems(write(tmp_path, "key_file: none.txt\n"), {})
    assert any(line.startswith("key_file:") and "cannot be read" in line for line in missing)


def test_a_secret_of_the_wrong_type_does_not_show_in_the_problem(tmp_path: Path) -> None:
    found = problems(write(tmp_path, "key: [hunter2]\n"), {})
    assert found == ["key: expected a non-empty text"]


@pytest.mark.parametrize(
    ("text", "said"), [("a: [", "not YAML at line"), ("- 1\n", "expected keys at the top"), ("\t", "not YAML")]
)
def test_a_file_that_is_no_configuration_is_said(tmp_path: Path, text: str, said: str) -> None:
    assert any(said in line for line in problems(write(tmp_path, text), {"OPSAPI_KEY": "k"}))


def test_a_missing_file_is_said() -> None:
    assert any("no such file" in line for line in problems(Path("/nonexistent/opsapi.yaml"), {"OPSAPI_KEY": "k"}))


class Keys(msgspec.Struct, frozen=True, kw_only=True):
    encryption: tuple[Secret, ...] = ()


def test_several_secrets_come_from_a_list_a_variable_or_a_file(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("one\ntwo\n")
    path = write(tmp_path, "encryption_file: keys\n")
    for model in (
        load(Keys, path, {}),
        load(Keys, write(tmp_path, "encryption: [one, two]\n"), {}),
        load(Keys, None, {"OPSAPI_ENCRYPTION": "one,two"}),
    ):
        assert [key.reveal() for key in model.encryption] == ["one", "two"]
