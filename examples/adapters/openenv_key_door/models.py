"""What goes over the wire."""

from steppo_gym.adapters.openenv import TextAction as KeyDoorAction
from steppo_gym.adapters.openenv import TextObservation as KeyDoorObservation

__all__ = ["KeyDoorAction", "KeyDoorObservation"]
