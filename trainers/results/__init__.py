"""Internal: what a run leaves to others: adapters, merged models, cards."""
