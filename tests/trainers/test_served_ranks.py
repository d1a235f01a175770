"""Two processes on three servers, one of which is killed: what everybody asks for reaches nobody else."""

from __future__ import annotations

import json

import pytest
import served_ranks
from ranks import run_ranks
from served_model import loader

from steppo_gym.rollouts.episode import read_episodes
from steppo_gym.rollouts.served.server_group import MAX_FAILURES
from steppo_gym.testing.completions_server import CompletionsServer


class DyingServer(CompletionsServer):
    """Is killed by its own fifth request, before that is answered."""

    def _complete(self, request):
        answer = super()._complete(request)
        if len(self.requests) >= 5:
            # One that still listens on a closed socket would turn round and round, and take the others their time.
            self._server.shutdown()
            self._server.abort()
            self._server.socket.close()
        return answer


@pytest.fixture(scope="module")
def run(random_folder, tmp_path_factory):
    """The folder of the run, and the requests that each server got."""
    out, folder = tmp_path_factory.mktemp("run"), tmp_path_factory.mktemp("served") / "weights"
    load = loader(random_folder)
    with (
        CompletionsServer(load, folder=folder) as first,
        CompletionsServer(load, folder=folder) as second,
        DyingServer(load, folder=folder) as third,
    ):
        servers = (first, second, third)
        addresses = ",".join(server.url for server in servers)

        def rank():
            # A server is not gone as long as somebody holds its socket.
            for server in servers:
                server._server.socket.close()
            served_ranks.main(random_folder, out, addresses, folder)

        said = "".join(process.stderr for process in run_ranks(2, rank))
        return out, [server.requests for server in servers], said


def episodes_of(out, rank):
    return [list(read_episodes(out / "episodes" / f"iteration-{i:04d}-rank{rank}.jsonl")) for i in (1, 2)]


def prompts(episodes):
    return {step.prompt_ids for part in episodes for episode in part for step in episode.steps}


def test_processes_ask_their_own_servers_different_numbers_of_questions(run):
    out, (first, second, third), _ = run
    mine, others = (prompts(episodes_of(out, rank)) for rank in (0, 1))
    asked = [{tuple(request["prompt"]) for request in requests} for requests in (first, second, third)]
    assert others <= asked[1]
    assert mine <= asked[0] | asked[2]
    assert not (mine - others) & asked[1]
    assert len(first) + len(third) != len(second)


def test_a_killed_server_costs_its_episodes_and_the_run_goes_on(run):
    out, (_, _, third), said = run
    failed = [[e.failure is not None for part in episodes_of(out, rank) for e in part] for rank in (0, 1)]
    # What it was asked at that time, and what it was asked until it counted as lost.
    assert 1 <= sum(failed[0]) <= 4 + MAX_FAILURES
    assert sum(failed[1]) == 0
    assert [len(part) for part in failed] == [16, 16]
    assert len(third) < 20
    assert "A server is not asked any more" in said
    assert "does not take new weights and is not asked" in said


def test_the_weights_of_the_first_process_are_those_that_all_servers_sample_with(run):
    out, *_ = run
    for rank in (0, 1):
        versions = [{s.version for e in part for s in e.steps} for part in episodes_of(out, rank)]
        assert versions == [{0}, {1}]
    gaps = [entry["sampling_gap"] for entry in json.loads((out / "log.json").read_text()) if "sampling_gap" in entry]
    assert len(gaps) == 2 and max(gaps) < 1e-4


def test_a_process_whose_share_of_an_evaluation_failed_does_not_end_the_run(run):
    out, *_ = run
    log = json.loads((out / "log.json").read_text())
    (found,) = [entry for entry in log if "eval_held_out_failed_rate" in entry]
    assert found["eval_held_out_failed_rate"] == 0.5
    assert found["eval_held_out_episode_steps"] == 4.0
