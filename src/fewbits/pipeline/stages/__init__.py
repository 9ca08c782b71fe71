"""The stages of a run."""

from fewbits.pipeline.stages.channels import remove_channels

__all__ = ["remove_channels"]
