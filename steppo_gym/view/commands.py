"""`steppo-gym view`."""

from __future__ import annotations

import argparse

from steppo_gym.storage.http_server import serve_until_signal
from steppo_gym.view.export import export
from steppo_gym.view.run_folder import open_runs
from steppo_gym.view.server import ViewServer


def view(options: argparse.Namespace) -> int:
    """Serve the page until a signal arrives, or write it to a file."""
    if options.episodes < 0:
        raise ValueError(f"--episodes must be at least 0, got {options.episodes}.")
    runs = open_runs(options.runs)
    if options.html is not None:
        page, included, total = export(runs, most_episodes=options.episodes)
        options.html.write_text(page, encoding="utf-8")
        print(f"{options.html}: {included} of {total} episodes, {len(page.encode()) / 1e6:.1f} MB")
        return 0
    with ViewServer(runs, port=options.port) as server:
        print(f"{server.url}/ shows {', '.join(run.name for run in runs)}; Ctrl-C ends it.", flush=True)
        serve_until_signal(server)
    print("Stopped.")
    return 0
