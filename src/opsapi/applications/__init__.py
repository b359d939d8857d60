"""Applications: the Deployments, StatefulSets, DaemonSets and CronJobs of a workspace, what they are and how they scale."""
