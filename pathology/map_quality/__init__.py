"""How good a map is: against masks, against what the model does, and against chance. NumPy only."""
