"""KeyDoor: a small text game without data, for tests, examples and quick experiments."""
