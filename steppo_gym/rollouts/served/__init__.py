"""Internal: what policies behind a server are made of, `steppo_gym.rollouts.server_policy` and others."""
