"""The environments, one folder per task."""
