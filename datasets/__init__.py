"""Image sets as tensors in memory, with fixed stratified splits; nothing heavy is imported here."""
