"""The one thing that kubectl still asks of OpenAPI v2: whether a kind's patch knows `fieldValidation`.

It asks for objects of `kind: List`, with protobuf and in place of which it looks up Namespace. So the document holds
Namespace's patch and no more. Field numbers are those of gnostic's OpenAPIv2.proto.
"""

from collections.abc import Iterable

ACCEPTED = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"
CONTENT_TYPE = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
_VALIDATED = ("dryRun", "fieldValidation")
_GVK = 'group: ""\nkind: Namespace\nversion: v1\n'


def _field(number: int, content: bytes | str) -> bytes:
    raw = content.encode() if isinstance(content, str) else content
    return _varint(number << 3 | 2) + _varint(len(raw)) + raw


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _parameters(names: Iterable[str]) -> bytes:
    made = b""
    for name in names:
        in_query = _field(2, "query") + _field(4, name) + _field(6, "string")
        # ParametersItem.parameter -> Parameter.non_body_parameter -> NonBodyParameter.query_parameter_sub_schema
        made += _field(8, _field(1, _field(2, _field(3, in_query))))
    return made


def document() -> bytes:
    """Document{swagger, info, paths{/api/v1/namespaces/{name}: {patch}}} in protobuf."""
    extension = _field(1, "x-kubernetes-group-version-kind") + _field(2, _field(2, _GVK))
    patch = _field(5, "patchCoreV1Namespace") + _parameters(_VALIDATED) + _field(13, extension)
    path = _field(1, "/api/v1/namespaces/{name}") + _field(2, _field(8, patch))
    info = _field(1, "Kubernetes") + _field(2, "v1.36.2")
    return _field(1, "2.0") + _field(2, info) + _field(8, _field(2, path))
