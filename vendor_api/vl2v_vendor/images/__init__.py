"""Images from strangers: structure checks, decoding and preprocessing to the model's pixels."""
