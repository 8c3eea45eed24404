"""What is wrong with an environment, and the commands that cure it."""
