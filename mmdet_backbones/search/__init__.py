"""Which backbone for these data: many short trainings under one budget, on Ray."""
