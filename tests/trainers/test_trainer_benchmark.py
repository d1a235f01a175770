"""The benchmark of trainers, with a tiny policy: every side does the work that it is measured on."""

from __future__ import annotations

import pytest
from benchmark_scripts import load_benchmark

benchmark = load_benchmark("trainer")
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    policy = tmp_path_factory.mktemp("benchmark_policy")
    benchmark.make_policy(policy, hidden_size=16, updates=60)
    work = benchmark.Work(steps=2, episodes=4, group=2, iterations=2, policy=str(policy))
    sides = (benchmark.ours, benchmark.trl, benchmark.padded)
    return [side(work, str(tmp_path_factory.mktemp("run"))) for side in sides]


def test_all_play_the_same_number_of_steps(results):
    assert [one.arm for one in results] == ["steppo-gym", "trl", "padded"]
    assert {(one.steps, one.episodes, one.env_steps) for one in results} == {(2, 4, 8)}
    for one in results:
        # TRL says one more response than there are steps, and has no limit for each.
        longest = benchmark.RESPONSE_TOKENS * 8 if one.arm != "trl" else 4 * (64 * 2 + 64)
        assert 8 <= one.generated_tokens <= longest
        assert 0 <= one.padding < 1 and one.seconds > 0 and one.peak_mib > 0
        assert sum(one.phases.values()) == pytest.approx(1, abs=0.2)


def test_the_table_has_the_ratio_to_each(results):
    lines = benchmark.table(results).splitlines()[2:]
    ratios = [float(line.split("|")[4]) for line in lines]
    assert ratios[0] == 1
    assert ratios[2] == pytest.approx(results[2].seconds / results[0].seconds, abs=0.01)


def test_growth_is_between_neighbours():
    def side(steps, seconds):
        return benchmark.Measured("trl", steps, seconds, 10, 10 * steps, 1, 1.0)

    assert benchmark.growth([side(8, 5.0), side(4, 2.0)]) == "trl: 4 to 8 steps, an episode takes 2.50 times as long"
