"""How a plan is held on a network: attach it, read it, fold it."""

from fewbits.attach.attach import attach, background, evaluating, fold, held, load_plan, plan_of
from fewbits.attach.hold import Held
from fewbits.attach.mask import HeldMask
from fewbits.attach.normalisation import merge_statistics
from fewbits.attach.surgery import channels_of, narrow, silence

__all__ = [
    "Held",
    "HeldMask",
    "attach",
    "background",
    "channels_of",
    "evaluating",
    "fold",
    "held",
    "load_plan",
    "merge_statistics",
    "narrow",
    "plan_of",
    "silence",
]
