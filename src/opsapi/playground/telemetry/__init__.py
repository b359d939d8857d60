"""What can be measured of the simulated workloads: metrics.k8s.io, Prometheus text, logs."""
