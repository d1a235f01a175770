"""KeyDoor's web application: `uvicorn server.app:app`, or `python -m server.app`."""

import argparse

import uvicorn  # type: ignore[import-not-found]

from steppo_gym.adapters.openenv import text_app

app = text_app("steppo/KeyDoor-v0", split="validation")


def main() -> None:
    """Serve."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--host", default="0.0.0.0")
    parser.add_argument("--port", type=int, default=8000)
    options = parser.parse_args()
    uvicorn.run(app, host=options.host, port=options.port)


if __name__ == "__main__":
    main()
