"""CSI snapshots: the controller of snapshot.storage.k8s.io and the driver's side of it."""
