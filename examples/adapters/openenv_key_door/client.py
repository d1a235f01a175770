"""The client."""

from steppo_gym.adapters.openenv import TextEnvClient as KeyDoorEnv

__all__ = ["KeyDoorEnv"]
