"""Which node a pod goes to: filters, scores and the words for why none will do."""
