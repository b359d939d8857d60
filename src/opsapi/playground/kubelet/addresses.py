"""Pod addresses, handed out from each node's podCIDR."""

import ipaddress

from opsapi.playground.registry import Obj


class Addresses:
    def __init__(self) -> None:
        self._bases: dict[str, tuple[int, int]] = {}
        self._used: dict[str, set[int]] = {}
        self._next: dict[str, int] = {}

    def note(self, node: Obj) -> None:
        """Learns a node's range; a node without one gets none of its pods addressed."""
        name = node["metadata"]["name"]
        cidr = node["spec"].get("podCIDR")
        if cidr and name not in self._bases:
            network = ipaddress.ip_network(cidr)
            self._bases[name] = (int(network.network_address), network.num_addresses)

    def take(self, pod: Obj) -> str:
        """The next free address of the pod's node, starting at .2; "" where the range is unknown or used up."""
        node = pod["spec"]["nodeName"]
        if node not in self._bases:
            return ""
        base, size = self._bases[node]
        used = self._used.setdefault(node, set())
        for _ in range(size):
            offset = self._next.get(node, 2)
            self._next[node] = offset + 1 if offset + 1 < size - 1 else 2
            if offset not in used:
                used.add(offset)
                return str(ipaddress.ip_address(base + offset))
        return ""

    def free(self, pod: Obj) -> None:
        address, node = pod.get("status", {}).get("podIP"), pod["spec"].get("nodeName", "")
        if address and node in self._bases and not pod["spec"].get("hostNetwork"):
            self._used.get(node, set()).discard(int(ipaddress.ip_address(address)) - self._bases[node][0])
