"""The playbooks that there are, by the operation that each carries out."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from opsapi.kit.errors import ValidationFailed
from opsapi.playbooks.model import PlaybookParameters
from opsapi.playbooks.ports import Playbook

_AT = re.compile(r"^(?P<reason>.*?)(?: - at `\$\.?(?P<path>[^`]*)`)?$", re.DOTALL)


class Playbooks:
    def __init__(self, playbooks: Sequence[Playbook]) -> None:
        self._known = {playbook.operation: playbook for playbook in playbooks}

    def find(self, operation: str) -> Playbook:
        """Raises ValidationFailed, which names what is known."""
        found = self._known.get(operation)
        if found is None:
            known = ", ".join(sorted(self._known))
            raise ValidationFailed({"operation": f"is no operation that can be executed; known: {known}"})
        return found

    def check(self, operation: str, parameters: Mapping[str, Any]) -> None:
        """Raises ValidationFailed."""
        decode_parameters(self.find(operation), dict(parameters))


def decode_parameters(playbook: Playbook, given: dict[str, Any]) -> PlaybookParameters:
    """Raises ValidationFailed, which names what is known where a parameter is not."""
    try:
        return msgspec.convert(given, playbook.parameters_type)
    except msgspec.ValidationError as error:
        matched = _AT.match(str(error))
        reason, path = (matched["reason"], matched["path"] or "") if matched else (str(error), "")
        if "unknown field" in reason:
            reason = f"{reason}; known: {', '.join(playbook.parameters_type.__struct_fields__)}"
        named = ".".join(filter(None, ("parameters", path)))
        raise ValidationFailed({named: reason}) from None
