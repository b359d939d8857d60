"""Policy: the guardrails that decide whether a change may happen, in one pure place."""
