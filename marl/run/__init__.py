"""Running: from a configuration to a trained team in a run folder, and back from the folder to the team."""
