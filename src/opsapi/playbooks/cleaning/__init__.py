"""cleanup_resources: deletes what has ended or expired, reports what seems unused, and can bring back what it took."""
