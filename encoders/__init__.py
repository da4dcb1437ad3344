"""Headlines to vectors, price windows to vectors. Knows tensors, not frames, files or dates."""
