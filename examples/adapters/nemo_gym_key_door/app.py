"""KeyDoor as a resources server of NeMo Gym: put this folder into its `resources_servers/`."""

from typing import Any, ClassVar

from steppo_gym.adapters.nemo_gym import TextServer


class KeyDoorServer(TextServer):
    """The validation tasks of KeyDoor."""

    env_id: ClassVar[str] = "steppo/KeyDoor-v0"
    env_arguments: ClassVar[dict[str, Any]] = {"split": "validation"}


if __name__ == "__main__":
    KeyDoorServer.run_webserver()
