"""How embgemma-tiny, the model in the box, was trained: see runtime/models/README.md."""
