"""`steppo-gym view`."""

from __future__ import annotations

import argparse

from steppo_gym.storage.http_server import serve_until_signal
from steppo_gym.view.export import MOST_EPISODES, export
from steppo_gym.view.run_folder import open_runs
from steppo_gym.view.server import ViewServer


def view(options: argparse.Namespace) -> int:
    """Serve the page until a signal arrives, or write it to a file."""
    if options.html is None and options.episodes is not None:
        raise ValueError("--episodes is about the page of --html, which is not asked for.")
    if options.html is not None and options.port is not None:
        raise ValueError("--port is about the server, --html starts none. Give one of them.")
    most = MOST_EPISODES if options.episodes is None else options.episodes
    if most < 0:
        raise ValueError(f"--episodes must be at least 0, got {most}.")
    runs = open_runs(options.runs)
    if options.html is not None:
        options.html.parent.mkdir(parents=True, exist_ok=True)  # before the work is done
        page, included, total = export(runs, most_episodes=most)
        options.html.write_text(page, encoding="utf-8")
        print(f"{options.html}: {included} of {total} episodes, {len(page.encode()) / 1e6:.1f} MB")
        return 0
    with ViewServer(runs, port=options.port or 0) as server:
        print(f"{server.url}/ shows {', '.join(run.name for run in runs)}; Ctrl-C ends it.", flush=True)
        serve_until_signal(server)
    print("Stopped.")
    return 0
