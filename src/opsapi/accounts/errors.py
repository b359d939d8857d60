"""What authentication and administration refuse."""

from enum import StrEnum
from typing import Literal

from opsapi.kit.errors import Details, OpsError
from opsapi.kit.permissions import Grant, Grants, Permission

TokenStatus = Literal["missing", "malformed", "unknown", "mismatched", "expired", "revoked", "disabled"]
"""`mismatched`, `expired`, `revoked` and `disabled` are only ever told to who holds the token's text. Who does not
hears `unknown`, whether or not there is such an account."""


class CredentialDetails(Details, frozen=True, kw_only=True):
    service_account_id: str
    token_status: TokenStatus


class InvalidServiceAccount(OpsError):
    code = "INVALID_SERVICE_ACCOUNT"
    status = 401
    summary = "The credentials are missing or not valid; `details.token_status` says how."
    details_type = CredentialDetails

    def __init__(self, service_account_id: str, token_status: TokenStatus) -> None:
        super().__init__(
            "Invalid or expired service account token",
            CredentialDetails(service_account_id=service_account_id[:128], token_status=token_status),
        )


class AddressDetails(Details, frozen=True, kw_only=True):
    service_account_id: str
    address: str


class IpNotAllowed(OpsError):
    code = "IP_NOT_ALLOWED"
    status = 403
    summary = "The account may not be used from this address."
    details_type = AddressDetails

    def __init__(self, service_account_id: str, address: str) -> None:
        super().__init__(
            f"Service account {service_account_id} may not be used from {address}",
            AddressDetails(service_account_id=service_account_id, address=address),
        )


class PermissionDetails(Details, frozen=True, kw_only=True):
    required_permission: str
    service_account_permissions: list[str]


class InsufficientInternalPermissions(OpsError):
    code = "INSUFFICIENT_INTERNAL_PERMISSIONS"
    status = 403
    summary = "The account lacks `details.required_permission` where it is needed."
    details_type = PermissionDetails

    def __init__(self, required: Permission, grants: Grants) -> None:
        super().__init__(
            "Service account lacks required permissions for this operation",
            PermissionDetails(required_permission=str(required), service_account_permissions=grants.names()),
        )


class DelegationDetails(Details, frozen=True, kw_only=True):
    service_account_id: str
    on_behalf_of: str


class DelegationNotAllowed(OpsError):
    code = "ON_BEHALF_OF_NOT_ALLOWED"
    status = 403
    summary = "`X-On-Behalf-Of` names somebody for whom the account may not act."
    details_type = DelegationDetails

    def __init__(self, service_account_id: str, on_behalf_of: str) -> None:
        super().__init__(
            f"Service account {service_account_id} may not act for {on_behalf_of}",
            DelegationDetails(service_account_id=service_account_id, on_behalf_of=on_behalf_of),
        )


class GrantRule(StrEnum):
    """What keeps an account from handing on more than it has."""

    EXCEEDS_OWN_PERMISSIONS = "exceeds_own_permissions"
    EXCEEDS_OWN_DELEGATION = "exceeds_own_delegation"
    EXCEEDS_OWN_ADDRESSES = "exceeds_own_addresses"
    EXCEEDS_OWN_LIFETIME = "exceeds_own_lifetime"
    APPROVALS_ARE_FOR_PERSONS = "approvals_are_for_persons"
    PERSONS_ARE_MADE_BY_PERSONS = "persons_are_made_by_persons"
    OWN_ACCOUNT = "own_account"


_SAYS = {
    GrantRule.EXCEEDS_OWN_PERMISSIONS: "an account cannot hand on permissions that it lacks",
    GrantRule.EXCEEDS_OWN_DELEGATION: "an account cannot let others act for whom it may not act itself",
    GrantRule.EXCEEDS_OWN_ADDRESSES: "an account limited to addresses cannot make one that is usable elsewhere",
    GrantRule.EXCEEDS_OWN_LIFETIME: "a token of an agent or service cannot make one that outlives it",
    GrantRule.APPROVALS_ARE_FOR_PERSONS: "only accounts of kind person may hold approvals:write",
    GrantRule.PERSONS_ARE_MADE_BY_PERSONS: "only a person, or the CLI on the machine, manages accounts of persons",
    GrantRule.OWN_ACCOUNT: "an account cannot change or disable itself",
}


class GrantDetails(Details, frozen=True, kw_only=True):
    rule: str
    refused: list[str] | None = None


class GrantNotAllowed(OpsError):
    code = "GRANT_NOT_ALLOWED"
    status = 403
    summary = "The change would hand on more than the caller has; `details.rule` names the rule, `refused` the excess."
    details_type = GrantDetails

    def __init__(self, rule: GrantRule, refused: "list[str] | frozenset[Grant] | None" = None) -> None:
        names = sorted(str(one) for one in refused) if refused is not None else None
        shown = f": {', '.join(names[:5])}" if names else ""
        super().__init__(f"Refused, since {_SAYS[rule]}{shown}", GrantDetails(rule=rule, refused=names))
