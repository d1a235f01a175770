"""The environments as a task set of verifiers, which finds it by the name of this file.

Put this file where Python finds it, then for example:

    vf-eval steppo_taskset --env.taskset.env-id steppo/KeyDoor-v0 --select.limit 4 \
        --model my-model --client.base-url http://localhost:8000/v1 --client.api-key-var MY_KEY
"""

from steppo_gym.adapters.verifiers import TextTaskEnv, TextTaskset

__all__ = ["TextTaskEnv", "TextTaskset"]
