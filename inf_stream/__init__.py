"""inf-stream: streaming video and conversation with multimodal LLMs in a KV cache whose size never grows."""

__version__ = "0.1.0"
