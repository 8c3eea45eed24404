"""One command for all of it; no module here imports torch before it has work to do."""
