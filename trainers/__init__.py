"""The trainer: rollouts, credit and the critic on top of TRL."""
