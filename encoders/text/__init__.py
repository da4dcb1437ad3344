"""Headlines to vectors: any Hugging Face encoder, named in the config, fingerprinted by its bytes."""
