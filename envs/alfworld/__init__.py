"""ALFWorld on the real TextWorld engine."""
