"""Train a policy with GSPO: GRPO's advantages with one length-normalized ratio per step (arXiv:2507.18071).

python trainers/gspo.py --env alfworld
"""

from steppo_gym.trainers.rules import GSPO
from steppo_gym.trainers.run.launch import launch

if __name__ == "__main__":
    launch(GSPO)
