"""The nodes' side: pods start, are probed, fail, restart and end, on virtual time."""
