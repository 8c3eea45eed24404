"""A page in the browser that shows what a detector finds in a photograph."""
