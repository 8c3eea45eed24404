"""How fast backbones and detectors are, measured side by side."""
