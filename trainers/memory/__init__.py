"""Internal: how much memory a run needs, computed from its settings and its model's configuration."""
