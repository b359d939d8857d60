"""Operations: durable pieces of work in steps, exclusive by locks, that survive the death of who runs them."""
