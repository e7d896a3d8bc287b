"""Real Ray processes; a package, so that its tests share a cluster that ends with them."""
