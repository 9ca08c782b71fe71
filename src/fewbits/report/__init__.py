"""What a compression did: data, tables, pictures and one HTML page."""

from fewbits.report.explain import explain
from fewbits.report.explanation import Explanation, Faithfulness, HeatMap, LayerExplanation, Opinion, Sampled, TokenMap
from fewbits.report.page import page, write_page
from fewbits.report.priced import prices_page
from fewbits.report.provenance import provenance
from fewbits.report.report import OperationRow, PilotRun, Report, RestRow, Round, TensorRow, Try
from fewbits.report.results import Results, load_results, results_page
from fewbits.report.table import render, text
from fewbits.report.tasks import TaskTest, TaskView, tasks_page

__all__ = [
    "Explanation",
    "Faithfulness",
    "HeatMap",
    "LayerExplanation",
    "OperationRow",
    "Opinion",
    "PilotRun",
    "Report",
    "RestRow",
    "Results",
    "Round",
    "Sampled",
    "TaskTest",
    "TaskView",
    "TensorRow",
    "TokenMap",
    "Try",
    "explain",
    "load_results",
    "page",
    "prices_page",
    "provenance",
    "render",
    "results_page",
    "tasks_page",
    "text",
    "write_page",
]
