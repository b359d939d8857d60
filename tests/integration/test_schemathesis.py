"""Schemathesis reads the OpenAPI document of the running service and tries everything that it says."""

import base64
import json
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from opsapi.cli.app import app
from opsapi.kit.endpoint import LIMIT_CLASSES
from support.playground_process import playground
from support.requests import Api
from support.serving import serving

CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,"
    "response_schema_conformance,ignored_auth,unsupported_method"
)
PLENTY = 1_000_000
GRANTS = (
    "system:read",
    "workspaces:admin",
    "workspace:admin",
    "application:write",
    "audit:read",
    "accounts:admin",
    "webhooks:admin",
)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    folder = tmp_path_factory.mktemp("schemathesis")
    with playground(folder, "--world", "demo") as cluster:
        config = folder / "opsapi.yaml"
        config.write_text(
            json.dumps(
                {
                    "keys": {"audit": base64.b64encode(secrets.token_bytes(32)).decode()},
                    "http": {
                        "port": 0,
                        "limits": {limit.name: PLENTY for limit in LIMIT_CLASSES},
                        "unknown_per_minute": PLENTY,
                        "failed_logins_per_minute": PLENTY,
                    },
                    "database": {"url": f"sqlite:///{folder / 'state.db'}"},
                    "workspaces": [
                        {"id": "ws-123", "kubeconfig": str(cluster.kubeconfig), "mode": "act", "namespaces": ["shop"]}
                    ],
                }
            )
        )
        grants = [part for grant in GRANTS for part in ("--grant", grant)]
        made = CliRunner().invoke(
            app, ["accounts", "create", "fuzzer", "--kind", "person", *grants, "-c", str(config), "--json"]
        )
        assert made.exit_code == 0, made.output
        account = json.loads(made.stdout)
        with serving(config, "service") as url:
            yield Api(url, account["account"]["id"], account["secret"])


def tried(api: Api, folder: Path, *options: str) -> None:
    """Every operation but those that would end the fuzzer's own account."""
    done = subprocess.run(
        [
            str(Path(sys.executable).with_name("schemathesis")), "run", f"{api.url}/internal/v1/openapi.json",
            "--header", f"Authorization:Bearer {api.token}", "--header", f"X-Service-Account:{api.account}",
            "--checks", CHECKS, "--exclude-operation-id", "disable_service_account",
            "--request-timeout", "30", "--generation-deterministic", "--no-color", *options,
        ],
        cwd=folder, capture_output=True, text=True, timeout=500, check=False,
        env=os.environ | {"PYTHONWARNINGS": "default"},
    )  # fmt: skip
    assert done.returncode == 0, (done.stdout + done.stderr).replace(api.token, "(the token)")[-6000:]
    assert "Tested:" in done.stdout, done.stdout[-2000:]


def test_every_operation_answers_as_it_says(api: Api, tmp_path: Path) -> None:
    tried(api, tmp_path, "--phases", "examples,coverage", "--max-examples", "5")


@pytest.mark.slow
def test_every_operation_answers_as_it_says_whatever_is_sent(api: Api, tmp_path: Path) -> None:
    tried(api, tmp_path, "--phases", "fuzzing", "--max-examples", "25")
