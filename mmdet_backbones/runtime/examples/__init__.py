"""How to run an exported folder without this package: an export copies these files."""
