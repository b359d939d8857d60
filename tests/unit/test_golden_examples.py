"""Every example of the specification is what our Structs read and write, to the last field and value."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from opsapi.accounts.errors import (
    CredentialDetails,
    InsufficientInternalPermissions,
    InvalidServiceAccount,
    PermissionDetails,
)
from opsapi.applications.autoscaling_model import AutoscaleAnswer, AutoscaleBody
from opsapi.applications.details_model import Details
from opsapi.applications.scaling_model import ScaleAnswer, ScaleBody
from opsapi.backups.views import BackupAnswer, BackupBody
from opsapi.health.model import Health
from opsapi.incidents.views import ManageBody, ManagedIncident
from opsapi.kit.endpoint import declarations
from opsapi.kit.errors import Details as ErrorDetails
from opsapi.kit.errors import OpsError
from opsapi.operations.errors import InProgressDetails, OperationInProgress
from opsapi.playbooks.model import OperationAnswer, OperationBody
from opsapi.workspaces.endpoints import WorkspaceEndpoints
from opsapi.workspaces.nodes import Nodes
from opsapi.workspaces.overview_model import Overview

SPEC = Path(__file__).parent.parent / "recordings" / "spec"
RESPONSES: dict[str, type[msgspec.Struct]] = {
    "manage_incident": ManagedIncident,
    "trigger_backup": BackupAnswer,
    "get_system_health": Health,
    "get_workspace_overview": Overview,
    "get_nodes": Nodes,
    "get_application_details": Details,
    "scale_deployment": ScaleAnswer,
    "auto_scale_application": AutoscaleAnswer,
    "execute_workspace_operation": OperationAnswer,
}
REQUESTS: dict[str, type[msgspec.Struct]] = {
    "manage_incident": ManageBody,
    "trigger_backup": BackupBody,
    "scale_deployment": ScaleBody,
    "auto_scale_application": AutoscaleBody,
    "execute_workspace_operation": OperationBody,
}
ERRORS: dict[str, tuple[type[OpsError], type[ErrorDetails]]] = {
    "401_unauthorized_invalid_service_account": (InvalidServiceAccount, CredentialDetails),
    "403_forbidden_insufficient_permissions": (InsufficientInternalPermissions, PermissionDetails),
    "409_conflict_operation_in_progress": (OperationInProgress, InProgressDetails),
}
LATER = {
    "get_ai_insights",
    "analyze_performance",
    "query_logs",
}
"""Endpoints of the specification that are not served yet, and the request of one whose answer is."""


def recorded(name: str) -> dict[str, Any]:
    held: dict[str, Any] = json.loads((SPEC / name).read_text())
    return held


def again(value: object, kind: type[msgspec.Struct]) -> object:
    """Read strictly as `kind`, and written again."""
    return json.loads(msgspec.json.encode(msgspec.json.decode(json.dumps(value), type=kind, strict=True)))


@pytest.mark.parametrize("name", RESPONSES)
def test_an_example_answer_reads_and_writes_as_it_stands(name: str) -> None:
    data = recorded(f"{name}.response.json")["data"]
    assert again(data, RESPONSES[name]) == data


@pytest.mark.parametrize("name", REQUESTS)
def test_an_example_request_is_accepted_whole(name: str) -> None:
    body = recorded(f"{name}.request.json")
    read = msgspec.json.decode(json.dumps(body), type=REQUESTS[name], strict=True)
    written = json.loads(msgspec.json.encode(read))
    assert {key: written[key] for key in body} == body
    assert REQUESTS[name].__struct_config__.forbid_unknown_fields


@pytest.mark.parametrize("name", ERRORS)
def test_an_example_error_has_our_code_message_and_details(name: str) -> None:
    error, details = ERRORS[name]
    body = recorded(f"{name}.error.json")["error"]
    assert error.code == body["code"]
    assert error.status == int(name[:3])
    assert error.details_type is details
    assert again(body["details"], details) == body["details"]


def test_every_example_of_the_specification_is_held_or_named_as_to_come() -> None:
    names = {path.name.split(".")[0] for path in SPEC.glob("*.json")}
    assert names == RESPONSES.keys() | ERRORS.keys() | LATER


def test_the_documented_examples_are_the_specifications() -> None:
    documented = {
        declaration.name: [json.loads(msgspec.json.encode(example.response)) for example in declaration.examples]
        for declaration in declarations(WorkspaceEndpoints)
    }
    assert documented["get_nodes"] == [recorded("get_nodes.response.json")["data"]]
    assert documented["get_workspace_overview"] == [recorded("get_workspace_overview.response.json")["data"]]
