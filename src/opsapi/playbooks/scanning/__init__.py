"""security_scan: what reports and pod templates say about a workspace's security. It reads, and changes nothing."""
