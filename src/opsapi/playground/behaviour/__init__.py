"""How simulated containers behave: what load they see, what they use, what they log and how they fail."""
