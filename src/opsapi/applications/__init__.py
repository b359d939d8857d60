"""Applications: a workspace's Deployments, StatefulSets, DaemonSets and CronJobs, what they are and how they scale."""
