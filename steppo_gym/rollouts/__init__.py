"""Rollouts: policies play episodes in a pool of environments.

A policy behind a server needs httpx: import `steppo_gym.rollouts.server_policy`.
"""

from steppo_gym.rollouts.codec import ByteCodec, Codec
from steppo_gym.rollouts.demonstrations import CorruptedExpert, MessageCodec, demonstrate
from steppo_gym.rollouts.env_host import EnvFactory
from steppo_gym.rollouts.episode import Episode, Failure, Step, read_episodes, write_episodes
from steppo_gym.rollouts.open_episode import Assignment
from steppo_gym.rollouts.policies import (
    Answer,
    ExpertPolicy,
    Policy,
    RandomPolicy,
    Request,
    Response,
    ScriptedPolicy,
    StreamingPolicy,
)
from steppo_gym.rollouts.pool import EnvPool
from steppo_gym.rollouts.rollout import Rollout, RolloutStats, collect, require_played
from steppo_gym.rollouts.snapshots import Snapshot, take_snapshots

__all__ = [
    "Answer",
    "Assignment",
    "ByteCodec",
    "Codec",
    "CorruptedExpert",
    "EnvFactory",
    "EnvPool",
    "Episode",
    "ExpertPolicy",
    "Failure",
    "MessageCodec",
    "Policy",
    "RandomPolicy",
    "Request",
    "Response",
    "Rollout",
    "RolloutStats",
    "ScriptedPolicy",
    "Snapshot",
    "Step",
    "StreamingPolicy",
    "collect",
    "demonstrate",
    "read_episodes",
    "require_played",
    "take_snapshots",
    "write_episodes",
]
