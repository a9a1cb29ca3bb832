"""From a run to files that llama.cpp and Ollama serve, proved to answer as the trained model does."""
