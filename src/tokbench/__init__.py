"""tokbench: tokens per second, latency and energy of local language models, beside what Cerebras and Groq publish."""

__version__ = "0.1.0"
