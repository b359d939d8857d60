"""Writes src/opsapi/playground/machinery/schema.txt from the Go types of Kubernetes' API repositories.

Usage: python tools/generate_playground_schema.py API APIMACHINERY APIEXTENSIONS > schema.txt
where the arguments are checkouts (bare ones do) of kubernetes/api, kubernetes/apimachinery and
kubernetes/apiextensions-apiserver. Only facts are taken: field names, types, protobuf numbers, list types, merge keys.

One section a struct, `[package.Struct]`, with ` atomic` behind it for +structType=atomic; one line a field:
`name number type flags…`. Types: string int32 int64 bool float64 bytes Quantity Time MicroTime IntOrString Raw or a
struct, behind [] (list) or {} (map). A name with ~ is an inlined struct. Flags: p pointer, e emitted when empty,
map=keys/set (list type; without it atomic), atomic (a map or struct that is), patch=strategy[:mergeKey], default=json.
"""

import re
import subprocess
import sys
from dataclasses import dataclass, field

PACKAGES = {
    "core/v1": (0, "core/v1"),
    "apps/v1": (0, "apps/v1"),
    "events/v1": (0, "events/v1"),
    "authentication/v1": (0, "authentication/v1"),
    "authorization/v1": (0, "authorization/v1"),
    "autoscaling/v1": (0, "autoscaling/v1"),
    "autoscaling/v2": (0, "autoscaling/v2"),
    "batch/v1": (0, "batch/v1"),
    "certificates/v1": (0, "certificates/v1"),
    "networking/v1": (0, "networking/v1"),
    "policy/v1": (0, "policy/v1"),
    "rbac/v1": (0, "rbac/v1"),
    "storage/v1": (0, "storage/v1"),
    "admissionregistration/v1": (0, "admissionregistration/v1"),
    "scheduling/v1": (0, "scheduling/v1"),
    "coordination/v1": (0, "coordination/v1"),
    "node/v1": (0, "node/v1"),
    "discovery/v1": (0, "discovery/v1"),
    "resource/v1": (0, "resource/v1"),
    "flowcontrol/v1": (0, "flowcontrol/v1"),
    "meta/v1": (1, "pkg/apis/meta/v1"),
    "apiextensions/v1": (2, "pkg/apis/apiextensions/v1"),
}
ROOTS = """\
core/v1.ConfigMap core/v1.Endpoints core/v1.Event core/v1.LimitRange core/v1.Namespace core/v1.Node
core/v1.PersistentVolumeClaim core/v1.PersistentVolume core/v1.Pod core/v1.PodTemplate core/v1.ReplicationController
core/v1.ResourceQuota core/v1.Secret core/v1.ServiceAccount core/v1.Service core/v1.Binding
apps/v1.ControllerRevision apps/v1.DaemonSet apps/v1.Deployment apps/v1.ReplicaSet apps/v1.StatefulSet events/v1.Event
authentication/v1.SelfSubjectReview authentication/v1.TokenReview authentication/v1.TokenRequest
authorization/v1.LocalSubjectAccessReview authorization/v1.SelfSubjectAccessReview
authorization/v1.SelfSubjectRulesReview authorization/v1.SubjectAccessReview
autoscaling/v1.HorizontalPodAutoscaler autoscaling/v2.HorizontalPodAutoscaler autoscaling/v1.Scale
batch/v1.CronJob batch/v1.Job certificates/v1.CertificateSigningRequest
networking/v1.IngressClass networking/v1.Ingress networking/v1.IPAddress networking/v1.NetworkPolicy
networking/v1.ServiceCIDR policy/v1.PodDisruptionBudget policy/v1.Eviction
rbac/v1.ClusterRoleBinding rbac/v1.ClusterRole rbac/v1.RoleBinding rbac/v1.Role
storage/v1.CSIDriver storage/v1.CSINode storage/v1.CSIStorageCapacity storage/v1.StorageClass
storage/v1.VolumeAttachment storage/v1.VolumeAttributesClass
admissionregistration/v1.MutatingAdmissionPolicy admissionregistration/v1.MutatingAdmissionPolicyBinding
admissionregistration/v1.MutatingWebhookConfiguration admissionregistration/v1.ValidatingAdmissionPolicy
admissionregistration/v1.ValidatingAdmissionPolicyBinding admissionregistration/v1.ValidatingWebhookConfiguration
apiextensions/v1.CustomResourceDefinition scheduling/v1.PriorityClass coordination/v1.Lease node/v1.RuntimeClass
discovery/v1.EndpointSlice resource/v1.DeviceClass resource/v1.ResourceClaim resource/v1.ResourceClaimTemplate
resource/v1.ResourceSlice flowcontrol/v1.FlowSchema flowcontrol/v1.PriorityLevelConfiguration
meta/v1.DeleteOptions meta/v1.Status""".split()  # noqa: SIM905 - a list of sixty is easier to read as words

SCALARS = {"string", "int32", "int64", "bool", "float64"}
SPECIAL = {
    "meta/v1.Time": "Time",
    "meta/v1.MicroTime": "MicroTime",
    "meta/v1.Duration": "string",
    "meta/v1.FieldsV1": "Raw",
    "meta/v1.TypeMeta": "Raw",
    "apiextensions/v1.JSON": "Raw",
    "apiextensions/v1.JSONSchemaProps": "Raw",
}
FOREIGN = {
    "resource.Quantity": "Quantity",
    "intstr.IntOrString": "IntOrString",
    "runtime.RawExtension": "Raw",
    "runtime.Object": "Raw",
    "types.UID": "string",
    "types.NodeName": "string",
}

_TYPE = re.compile(r"^type (\w+) (=\s*)?(.+?)( \{)?$")
_FIELD = re.compile(r"^\t(?:(\w+)\s+)?([\w.*\[\]]+)\s+`(.+)`")
_IMPORT = re.compile(r'^\t?(?:import )?(?:(\w+) )?"([^"]+)"$')
_TAG = re.compile(r'(\w+):"([^"]*)"')


@dataclass
class Field:
    name: str
    number: int
    type: str
    flags: list[str]


@dataclass
class Struct:
    atomic: bool = False
    fields: list[Field] = field(default_factory=list)


class Sources:
    """Reads the Go files of every package once."""

    def __init__(self, checkouts: list[str]) -> None:
        self.structs: dict[str, Struct] = {}
        self.aliases: dict[str, str] = {}
        self.raw: dict[str, list[tuple[str, str, str, list[str], dict[str, str]]]] = {}
        for package, (index, folder) in PACKAGES.items():
            listing = _git(checkouts[index], "ls-tree", "--name-only", "HEAD", folder + "/").split()
            for path in listing:
                if path.endswith(".go") and not re.search(r"_test\.go|zz_|generated|register|doc\.go", path):
                    self._read(package, _git(checkouts[index], "show", f"HEAD:{path}"))

    def _read(self, package: str, text: str) -> None:
        imports: dict[str, str] = {}
        struct: str | None = None
        notes: list[str] = []
        for line in text.splitlines():
            if (found := _IMPORT.match(line)) and struct is None:
                imports[found[1] or found[2].rsplit("/", 1)[-1]] = found[2]
            stripped = line.strip()
            if stripped.startswith("//"):
                notes.append(stripped[2:].strip())
                continue
            if struct is None:
                if found := _TYPE.match(line):
                    name = f"{package}.{found[1]}"
                    if found[3].startswith("struct"):
                        struct = None if found[3].endswith("}") else name
                        self.raw[name] = []
                        self.structs[name] = Struct(atomic="+structType=atomic" in notes)
                    elif not found[3].startswith("interface"):
                        self.aliases[name] = self._named(package, imports, found[3])
            elif line == "}":
                struct = None
            elif found := _FIELD.match(line):
                tags = dict(_TAG.findall(found[3]))
                kind = self._named(package, imports, found[2])
                self.raw[struct].append((found[1] or "", kind, tags.get("json", ""), notes, tags))
            if stripped or struct is None:
                notes = []

    def _named(self, package: str, imports: dict[str, str], go: str) -> str:
        """A Go type with its package resolved: `*core/v1.Foo`, `[]string`, `{}Quantity`."""
        if go.startswith("*"):
            return "*" + self._named(package, imports, go[1:])
        if go == "[]byte":
            return "bytes"
        if go.startswith("[]"):
            return "[]" + self._named(package, imports, go[2:])
        if found := re.match(r"map\[[\w.]+\](.+)", go):
            return "{}" + self._named(package, imports, found[1])
        if go in SCALARS or go == "bytes":
            return go
        if go in ("int", "uint8", "uint32"):
            return "int32"
        if go in FOREIGN:
            return FOREIGN[go]
        if "." in go:
            alias, name = go.split(".")
            path = imports.get(alias, alias)
            short = re.sub(r"^.*?(?:k8s.io/api/|pkg/apis/)", "", path)
            return f"{short}.{name}"
        return f"{package}.{go}"

    def resolve(self, kind: str) -> str:
        """Follows aliases down to scalars, lists, maps and structs."""
        for prefix in ("*", "[]", "{}"):
            if kind.startswith(prefix):
                return prefix + self.resolve(kind[len(prefix) :])
        if kind in SPECIAL:
            return SPECIAL[kind]
        if kind in self.aliases:
            return self.resolve(self.aliases[kind])
        if "." in kind and kind not in self.structs:
            return "Raw"
        return kind

    def build(self, name: str) -> Struct:
        struct = self.structs[name]
        if struct.fields:
            return struct
        for go_name, kind, json_tag, notes, tags in self.raw[name]:
            made = self._field(go_name, kind, json_tag, notes, tags)
            if made is not None:
                struct.fields.append(made)
        return struct

    def _field(self, go_name: str, kind: str, json_tag: str, notes: list[str], tags: dict[str, str]) -> Field | None:
        name, *options = json_tag.split(",")
        if kind == "meta/v1.TypeMeta" or name == "-":
            return None
        proto = tags.get("protobuf", "").split(",")
        number = int(proto[1]) if len(proto) > 1 else 0
        resolved = self.resolve(kind)
        pointer = resolved.startswith("*")
        resolved = resolved.removeprefix("*")
        if not name:
            return Field("~" + (go_name or resolved.rsplit(".", 1)[-1]), number, resolved, [])
        flags = ["p"] if pointer else []
        structured = not pointer and (resolved in ("Time", "MicroTime", "Quantity", "IntOrString") or "." in resolved)
        structured = structured and not resolved.startswith(("[]", "{}"))
        if "omitzero" not in options and ("omitempty" not in options or structured):
            flags.append("e")
        flags.extend(_markers(notes, tags))
        return Field(name, number, resolved, flags)


def _markers(notes: list[str], tags: dict[str, str]) -> list[str]:
    flags: list[str] = []
    kinds = [note.split("=", 1)[1] for note in notes if note.startswith("+listType=")]
    keys = [note.split("=", 1)[1] for note in notes if note.startswith("+listMapKey=")]
    strategy, merge_key = tags.get("patchStrategy", ""), tags.get("patchMergeKey", "")
    if kinds == ["map"]:
        flags.append("map=" + ",".join(keys))
    elif kinds == ["set"]:
        flags.append("set")
    elif not kinds and "merge" in strategy:
        flags.append(f"map={merge_key}" if merge_key else "set")
    if "+mapType=atomic" in notes or "+structType=atomic" in notes:
        flags.append("atomic")
    if strategy:
        flags.append(f"patch={strategy}" + (f":{merge_key}" if merge_key else ""))
    flags.extend(
        "default=" + note.split("=", 1)[1] for note in notes if note.startswith("+default=") and "ref(" not in note
    )
    return flags


def _git(checkout: str, *arguments: str) -> str:
    command = ["git", "-C", checkout, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout  # noqa: S603


def main(checkouts: list[str]) -> None:
    sources = Sources(checkouts)
    pending, done = list(ROOTS), dict[str, Struct]()
    while pending:
        name = pending.pop()
        if name in done:
            continue
        done[name] = sources.build(name)
        for one in done[name].fields:
            bare = one.type.replace("[]", "").replace("{}", "").replace("*", "")
            if "." in bare:
                pending.append(bare)
    for name in sorted(done):
        print(f"[{name}]" + (" atomic" if done[name].atomic else ""))
        for one in done[name].fields:
            print(one.name, one.number, one.type.replace("*", ""), *one.flags)


if __name__ == "__main__":
    main(sys.argv[1:])
