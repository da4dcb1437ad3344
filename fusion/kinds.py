"""All fusions. A new kind is one file with a config and a module, and one member of this union."""

from typing import Annotated

from pydantic import Field

from fusion.concat import ConcatConfig
from fusion.cross_attention import CrossAttentionConfig
from fusion.gated import GatedConfig
from fusion.price_only import PriceOnlyConfig
from fusion.text_only import TextOnlyConfig

FusionConfig = Annotated[
    ConcatConfig | GatedConfig | CrossAttentionConfig | PriceOnlyConfig | TextOnlyConfig,
    Field(discriminator="kind"),
]
