"""How each source calls the parameters of the same net."""
