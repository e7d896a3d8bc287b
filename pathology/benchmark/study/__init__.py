"""Studies: backbones, explanation methods, data sets and seeds, cell by cell."""
