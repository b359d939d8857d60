"""Rate limiters behind `kit.limits`."""
