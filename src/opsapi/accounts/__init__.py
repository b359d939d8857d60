"""Who may call: accounts, their tokens, what they are granted, and from where."""
