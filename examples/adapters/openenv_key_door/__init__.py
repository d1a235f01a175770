"""KeyDoor as an OpenEnv environment."""

from .client import KeyDoorEnv
from .models import KeyDoorAction, KeyDoorObservation

__all__ = ["KeyDoorAction", "KeyDoorEnv", "KeyDoorObservation"]
