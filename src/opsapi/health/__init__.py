"""How the service and what it depends on are: probed in the background, answered from memory."""
