"""Vision towers of our own, for `transformers` to find: small ones that its releases do not have."""

from inf_stream.models.towers.efficientnet_lite import EfficientNetLite, EfficientNetLiteConfig

__all__ = ["EfficientNetLite", "EfficientNetLiteConfig"]
