"""A scanning worker that kills itself with SIGKILL at a named point, the first time it gets there.

    python -m support.mortal_scanner DATABASE_URL POINT

POINT is `never` or `<before|after>:<method>[:<n>]`, a method of the ledger, the store of findings or the cluster's
objects. A scan only reads the cluster, so every worker brings its own, with the same objects.
"""

import asyncio
import sys

from opsapi.adapters.sql.engine import Database
from opsapi.adapters.sql.ledger import SqlLedger
from opsapi.adapters.sql.security import SqlFindingStore
from opsapi.kit.clock import SystemClock
from opsapi.operations.execution import Execution
from opsapi.operations.procedures import Procedures
from opsapi.operations.signals import Signals
from opsapi.operations.worker import Worker
from opsapi.playbooks.scanning.playbook import SecurityScan
from opsapi.playbooks.scanning.steps import ScanSettings, ScanSteps
from opsapi.workspaces.model import Mode
from opsapi.workspaces.objects import NAMESPACE, Namespace, ObjectMeta
from support.api_objects import FakeObjects
from support.inventory import FakeCluster, FakeClusters, FakeInventory, make_workspace
from support.mortal_worker import ENGINE, arm
from support.security import KINDS, REPORTS, hardened, vulnerability, vulnerability_report, workload


def scanned_cluster() -> tuple[FakeClusters, FakeObjects]:
    """A privileged Deployment and one report with two vulnerabilities."""
    inventory = FakeInventory()
    objects = FakeObjects(inventory)
    inventory.put(NAMESPACE, Namespace(metadata=ObjectMeta(name="shop", uid="uid-shop")))
    reports = vulnerability_report(vulnerability("CVE-1"), vulnerability("CVE-2", "LOW"), about=("Deployment", "web"))
    for body in (workload("Deployment", "web", hardened(context={"privileged": True})), reports):
        objects.put((KINDS | REPORTS)[body["kind"]], body)
    return FakeClusters(FakeCluster(make_workspace(mode=Mode.OBSERVE), inventory)), objects


async def scan_off(url: str, point: str) -> None:
    """Until no operation is queued or running any more."""
    clock, signals, database = SystemClock(), Signals(), Database(url)
    ledger, store = SqlLedger(database, clock, signals), SqlFindingStore(database, clock)
    clusters, objects = scanned_cluster()
    if point != "never":
        when, method, *nth = point.split(":")
        for held in (ledger, store, objects):
            arm(held, method, when, int(nth[0]) if nth else 1)
    procedures = Procedures()
    procedures.register(SecurityScan(clusters, ScanSteps(clusters, objects, store, ScanSettings())).procedure())
    worker = Worker(ledger, Execution(ledger, procedures, clock, ENGINE), procedures, signals, clock, ENGINE)
    running = asyncio.create_task(worker.run())
    while (depth := await ledger.depth()).queued + depth.running:
        await asyncio.sleep(0.02)
    worker.stop()
    await running
    await database.close()


if __name__ == "__main__":
    asyncio.run(scan_off(sys.argv[1], sys.argv[2]))
