"""What makes logits of a bag: a slide's tiles, taken together."""
