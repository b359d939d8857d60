"""auto_heal: restarts what hangs, takes back what was released ill, gives more memory to what ran out of it."""
