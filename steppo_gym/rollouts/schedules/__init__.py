"""In which order a rollout asks its policy and its environments. Internal: `steppo_gym.rollouts.collect` chooses."""
