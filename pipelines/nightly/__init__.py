"""`tapewire nightly`: ingest, embed, score, settle, seal and report, night after night, resumed where it was."""
