"""Pictures of what a backbone and a neck make of one photograph."""
