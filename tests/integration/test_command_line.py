"""The command line on a real database in a folder of its own, as a person would use it."""

import asyncio
import base64
import json
import secrets
import socket
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from opsapi.audit.chainer import Chainer
from opsapi.audit.checkpoints import LogCheckpoints
from opsapi.cli.app import app
from opsapi.settings.model import Settings
from opsapi.settings.source import load
from opsapi.wiring import opened_state

runner = CliRunner()


@pytest.fixture
def config(tmp_path: Path) -> Path:
    def key() -> str:
        return base64.b64encode(secrets.token_bytes(32)).decode()

    path = tmp_path / "opsapi.yaml"
    path.write_text(
        f"keys: {{audit: {key()}, encryption: [{key()}]}}\ndatabase: {{url: 'sqlite:///{tmp_path / 'state.db'}'}}\n"
        "http: {port: 0}\n"
    )
    return path


def run(*arguments: object) -> Result:
    return runner.invoke(app, [str(argument) for argument in arguments])


def created(config: Path, *grants: str, kind: str = "agent") -> dict[str, dict[str, str]]:
    options = [part for grant in grants for part in ("--grant", grant)]
    result = run("accounts", "create", "made by a test", "--kind", kind, *options, "-c", config, "--json")
    assert result.exit_code == 0, result.output
    made: dict[str, dict[str, str]] = json.loads(result.stdout)
    return made


def test_the_first_account_is_created_listed_and_audited(config: Path) -> None:
    made = created(config, "accounts:admin", kind="person")
    listed = json.loads(run("accounts", "list", "-c", config, "--json").stdout)
    assert [account["id"] for account in listed] == [made["account"]["id"]]
    trail = json.loads(run("audit", "list", "-c", config, "--json").stdout)
    assert [entry["resource"] for entry in trail][-1] == f"service-account/{made['account']['id']}"
    assert {entry["account_id"] for entry in trail} == {"system:cli"}


def test_a_tokens_text_is_stored_nowhere(config: Path) -> None:
    made = created(config)
    held = (config.parent / "state.db").read_bytes() + b"".join(
        path.read_bytes() for path in config.parent.glob("state.db-*")
    )
    assert str(made["secret"]).encode() not in held
    assert made["account"]["id"].encode() in held


def test_grants_are_added_and_taken_away(config: Path) -> None:
    account = created(config)["account"]["id"]
    assert "workspace:read@ws-1" in run("accounts", "grant", account, "workspace:read@ws-1", "-c", config).output
    assert "nothing" in run("accounts", "grant", account, "workspace:read@ws-1", "--remove", "-c", config).output


def test_rotation_needs_the_token_named_where_there_are_several(config: Path) -> None:
    account = created(config)["account"]["id"]
    first = run("accounts", "rotate", account, "-c", config, "--json")
    assert first.exit_code == 0
    again = run("accounts", "rotate", account, "-c", config)
    assert again.exit_code == 1
    assert "--token" in again.output


def test_a_revoked_account_can_get_no_new_token(config: Path) -> None:
    account = created(config)["account"]["id"]
    assert run("accounts", "revoke", account, "--yes", "-c", config).exit_code == 0
    refused = run("accounts", "token", account, "-c", config)
    assert refused.exit_code == 1
    assert "disabled" in refused.output


@pytest.mark.parametrize("grant", ["workspace:everything", "system:read@ws-1", "approvals:write"])
def test_a_permission_that_does_not_exist_or_does_not_fit_is_refused_with_the_reason(config: Path, grant: str) -> None:
    result = run("accounts", "create", "x", "--grant", grant, "-c", config)
    assert result.exit_code == 1
    assert "error:" in result.output


async def link(config: Path) -> int:
    """What the running service does in the background."""
    async with opened_state(load(Settings, config, {})) as state:
        return await Chainer(state.chain, state.chain_keys, LogCheckpoints(), state.clock, holder="test").work()


def test_an_altered_trail_is_found(config: Path) -> None:
    created(config, "system:read")
    assert asyncio.run(link(config)) == 2
    sound = run("audit", "verify", "-c", config)
    assert sound.exit_code == 0
    assert "2 entries" in sound.output
    with closing(sqlite3.connect(config.parent / "state.db")) as database, database:
        assert database.execute("UPDATE audit_entries SET account_id = 'sa-somebody-else' WHERE seq = 1").rowcount == 1
    altered = run("audit", "verify", "-c", config)
    assert altered.exit_code == 3
    assert "altered" in altered.output


def test_a_configuration_with_mistakes_names_all_of_them(config: Path) -> None:
    config.write_text("keys: {audit: 1}\nhttp: {prt: 1, port: many}\n")
    result = run("accounts", "list", "-c", config)
    assert result.exit_code == 2
    for said in ("keys.audit", "http.prt", "did you mean 'port'", "http.port", "0 to 65535"):
        assert said in result.output


def test_config_check_says_what_it_tried(config: Path) -> None:
    result = run("config", "check", "-c", config)
    assert result.exit_code == 0
    assert "will create it" in result.output
    with config.open("a") as sink:
        sink.write("workspaces: [{id: ws-1, kubeconfig: missing.yaml}]\n")
    failed = run("config", "check", "-c", config)
    assert failed.exit_code == 3
    assert "workspace ws-1" in failed.output


def test_the_printed_rights_hold_no_secrets_and_no_wildcards() -> None:
    printed = run("workspaces", "rbac", "--namespace", "shop").output
    assert "secrets" not in printed
    assert "'*'" not in printed
    assert "kind: ClusterRole" not in printed


def test_an_unknown_feature_is_refused_with_those_that_exist() -> None:
    result = run("workspaces", "rbac", "--features", "everything")
    assert result.exit_code == 1
    assert "autoscale-config" in result.output


def test_the_openapi_document_is_printed() -> None:
    document = json.loads(run("openapi").stdout)
    assert document["openapi"].startswith("3.1")
    assert "/internal/v1/health" in document["paths"]


@pytest.mark.parametrize("command", ["serve", "demo", "accounts", "workspaces", "operations", "audit", "config"])
def test_every_command_explains_itself(command: str) -> None:
    result = run(command, "--help")
    assert result.exit_code == 0
    assert "Usage" in result.output


def test_an_account_is_not_left_behind_without_a_token(config: Path) -> None:
    refused = run("accounts", "create", "hasty", "--expires-in", "2s", "-c", config)
    assert refused.exit_code == 1
    assert "expires_in" in refused.output
    assert json.loads(run("accounts", "list", "-c", config, "--json").stdout) == []


def test_a_table_for_a_program_holds_ids_and_permissions_whole(config: Path) -> None:
    grants = [f"workspace:write@ws-a-rather-long-name-{number}" for number in range(4)]
    account = created(config, *grants)["account"]["id"]
    line = next(line for line in run("accounts", "list", "-c", config).stdout.splitlines() if account in line)
    assert all(grant in line for grant in grants)


def test_a_demo_whose_port_is_taken_says_so_before_anything_starts() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        result = run("demo", "--port", taken.getsockname()[1])
    assert result.exit_code == 1
    assert "--port" in result.output
    assert "starting" not in result.output


def test_a_demo_whose_ready_file_cannot_be_written_says_so_before_anything_starts(tmp_path: Path) -> None:
    for unwritable in (tmp_path / "absent" / "ready.json", tmp_path):
        result = run("demo", "--port", 0, "--ready-file", unwritable)
        assert result.exit_code == 1
        assert "--ready-file" in result.output
        assert "starting" not in result.output
        assert list(tmp_path.iterdir()) == []


def test_ctrl_c_while_the_commands_are_still_loading_is_no_traceback() -> None:
    program = "import opsapi.cli, sys; sys.modules['opsapi.cli.app'] = Interrupts(); opsapi.cli.main()"
    interrupts = "class Interrupts:\n def __getattr__(self, name):\n  raise KeyboardInterrupt\n"
    ended = subprocess.run([sys.executable, "-c", interrupts + program], capture_output=True, check=False)
    assert ended.returncode == 130
    assert ended.stderr == b""


def test_a_relative_database_file_lies_beside_the_configuration_wherever_the_command_is_given(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config.write_text(config.read_text().replace(f"sqlite:///{tmp_path / 'state.db'}", "sqlite:///beside.db"))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    created(config)
    assert (tmp_path / "beside.db").exists()
    assert list(elsewhere.iterdir()) == []
    assert str(tmp_path / "beside.db") in run("config", "check", "-c", config).stdout
