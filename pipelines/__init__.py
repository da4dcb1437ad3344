"""The jobs a person runs: import, embed, train, ablate, score, demo; the CLI and the config."""
