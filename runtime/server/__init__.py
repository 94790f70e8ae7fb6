"""`embgemma serve`: the model over HTTP, by the calls of OpenAI and Ollama. README.md says how to run it."""
