"""optimize_resources: requests and limits after what was really used, applied to templates and verified."""
