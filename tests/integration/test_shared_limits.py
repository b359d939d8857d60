"""Two replicas of the service on one Redis: together they let no account pass more than its limit."""

import asyncio
import base64
import json
import secrets
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from opsapi.cli.app import app
from support.redis_server import RedisServer, redis_server, settled
from support.requests import Api
from support.serving import serving

__all__ = ["redis_server"]

pytestmark = pytest.mark.slow
LIMIT = 7


def test_replicas_share_an_accounts_limit(tmp_path: Path, redis_server: RedisServer) -> None:
    config = _config(tmp_path, redis_server.url.reveal())
    with serving(config, "one") as one, serving(config, "two") as two:
        made = _cli("accounts", "create", "a", "--grant", "system:read", "-c", str(config), "--json")
        replicas = [Api(url, made["account"]["id"], made["secret"]) for url in (one, two)]
        asyncio.run(settled())
        answers = [replicas[number % 2].get("/whoami") for number in range(LIMIT + 2)]
    assert [answer.status for answer in answers] == [200] * LIMIT + [429] * 2
    remaining = [limit["remaining"] for limit in answers[LIMIT - 1].json["data"]["limits"] if limit["name"] == "other"]
    assert remaining == [0]


def test_the_check_of_the_configuration_asks_redis(tmp_path: Path, redis_server: RedisServer) -> None:
    config = _config(tmp_path, redis_server.url.reveal())
    well = CliRunner().invoke(app, ["config", "check", "-c", str(config)])
    assert "ok       redis: replicas share their rate limits" in well.output
    redis_server.kill()
    away = CliRunner().invoke(app, ["config", "check", "-c", str(config)])
    assert away.exit_code == 3
    assert "FAILED   redis: it does not answer" in away.output


def _config(folder: Path, redis: str) -> Path:
    config = folder / "opsapi.yaml"
    config.write_text(
        json.dumps(
            {
                "keys": {"audit": base64.b64encode(secrets.token_bytes(32)).decode()},
                "http": {"port": 0, "limits": {"other": LIMIT}},
                "database": {"url": f"sqlite:///{folder / 'state.db'}"},
                "limits": {"redis_url": redis, "redis_timeout_seconds": 5},
            }
        )
    )
    return config


def _cli(*arguments: str) -> Any:
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)
