"""`python -m opsapi.playground`: a small Kubernetes as a process."""

import argparse
import asyncio
import logging
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import uvloop

from opsapi.playground.process import Options, StartError, build_world, run
from opsapi.playground.world import INSTALLABLE


def _account(text: str) -> tuple[str, Path]:
    name, separator, path = text.partition("=")
    if not separator or name.count("/") != 1 or not path or "" in name.split("/"):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAMESPACE/NAME=KUBECONFIG")
    return name, Path(path)


def _speed(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 10_000:
        raise argparse.ArgumentTypeError(f"{text!r} is not a factor above 0 and up to 10000")
    return value


def _port(text: str) -> int:
    if not text.isdigit() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port; 0 takes a free one")
    return int(text)


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="opsapi-playground", description="A small Kubernetes in one process.")
    made.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)")
    made.add_argument("--port", type=_port, default=0, help="port; 0 takes a free one (default)")
    made.add_argument("--seed", type=int, default=1, help="the same seed gives the same history (default: 1)")
    made.add_argument("--speed", type=_speed, default=1.0, help="virtual seconds a second (default: 1)")
    made.add_argument("--world", default="demo", help="demo (default), empty, or scale:NODESxPODS")
    made.add_argument("--plain-http", action="store_true", help="no TLS; only for programs on this machine")
    made.add_argument("--ready-file", type=Path, help="JSON written once everything answers")
    made.add_argument("--kubeconfig", type=Path, help="where to write the administrator's kubeconfig")
    made.add_argument(
        "--manifest", type=Path, action="append", default=[], help="YAML or JSON to apply at the start; repeatable"
    )
    made.add_argument(
        "--install",
        choices=INSTALLABLE,
        action="append",
        default=[],
        help="what the cluster has besides; repeatable",
    )
    made.add_argument(
        "--service-account",
        type=_account,
        action="append",
        default=[],
        metavar="NAMESPACE/NAME=KUBECONFIG",
        help="write a kubeconfig for this ServiceAccount; repeatable",
    )
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    given = parser().parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    options = Options(
        host=given.host,
        port=given.port,
        seed=given.seed,
        speed=given.speed,
        world=given.world,
        tls=not given.plain_http,
        ready_file=given.ready_file,
        kubeconfig=given.kubeconfig,
        manifests=tuple(given.manifest),
        install=tuple(given.install),
        service_accounts=dict(given.service_account),
    )
    try:
        # Before the event loop takes the signals over, so that they end even a long start at once.
        world = build_world(options, datetime.now(UTC))
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(run(options, world))
    except StartError as error:
        print(f"opsapi-playground: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
