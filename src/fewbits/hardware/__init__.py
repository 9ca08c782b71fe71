"""What a network costs: parameters and multiplications, machines as data, and time and energy of a plan on them."""

from fewbits.hardware.array import Array, Constant, Dataflow, Registers, Unrolled, Zero
from fewbits.hardware.cost import COSTS, MACHINE_COSTS, Cost, CostMaker, cost_of, maker_of
from fewbits.hardware.count import Count, LayerCount, count
from fewbits.hardware.layers import Known, Layer, layers
from fewbits.hardware.machine import Decoder, Machine, Memory, Numbers, Storage
from fewbits.hardware.operations import Operation, OperationPrice, not_priced, operations
from fewbits.hardware.price import LayerPrice, Price, price
from fewbits.hardware.reading import machine_names, machine_of, machine_text

__all__ = [
    "COSTS",
    "MACHINE_COSTS",
    "Array",
    "Constant",
    "Cost",
    "CostMaker",
    "Count",
    "Dataflow",
    "Decoder",
    "Known",
    "Layer",
    "LayerCount",
    "LayerPrice",
    "Machine",
    "Memory",
    "Numbers",
    "Operation",
    "OperationPrice",
    "Price",
    "Registers",
    "Storage",
    "Unrolled",
    "Zero",
    "cost_of",
    "count",
    "layers",
    "machine_names",
    "machine_of",
    "machine_text",
    "maker_of",
    "not_priced",
    "operations",
    "price",
]
