"""Networks in integers alone: from the levels of the inputs to those of the outputs there is no float."""

from fewbits.int8.alone.form import PREFIX, alone_form, is_alone, is_alone_plan, refuse_alone
from fewbits.int8.alone.program import Program, program
from fewbits.int8.alone.tape import Step

__all__ = ["PREFIX", "Program", "Step", "alone_form", "is_alone", "is_alone_plan", "program", "refuse_alone"]
