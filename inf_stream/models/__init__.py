"""Adapters over unpatched Hugging Face transformers: families, weights, chat templates, and our attention."""
