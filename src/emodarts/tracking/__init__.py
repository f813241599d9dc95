"""What follows a run from outside. Nothing here breaks a run."""
