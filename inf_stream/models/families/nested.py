"""Families whose language model is one of the text families, as it is."""

from transformers import PreTrainedConfig

from inf_stream.base.errors import ModelError
from inf_stream.models.families.base import Family
from inf_stream.models.families.text import TEXT_FAMILIES


class WithTextFamily(Family):
    """A vision-language model around a language model of a text family, which decides how its layers see."""

    def sliding_windows(self, config: PreTrainedConfig) -> tuple[int | None, ...]:
        """As the text family has it."""
        return _text_family(config).sliding_windows(config)

    def refuse_unfit(self, config: PreTrainedConfig) -> None:
        """Raise for language models that cannot work.

        Raises:
            ModelError: naming the language model, or its setting that does not fit.
        """
        text = self.text_config(config)
        _text_family(text).refuse_unfit(text)


def _text_family(config: PreTrainedConfig) -> Family:
    for family in TEXT_FAMILIES:
        if config.model_type in family.model_types:
            return family()
    known = ", ".join(f.title for f in TEXT_FAMILIES)
    raise ModelError(
        f"the language model inside is of type '{config.model_type}', which is not supported; supported: {known}"
    )
