"""Internal: policy, critic and reference with their weights spread over all processes (`--shard`)."""
