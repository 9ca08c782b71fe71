"""One self-contained HTML page about the tasks of a network: who shares what, and what it is worth to whom."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from fewbits.report import _task_pictures as pictures
from fewbits.report._document import document, picture, section, table
from fewbits.report._markup import Markup, el

MOST, MOST_TASKS = 400, 32
"""Segments, and tasks, of which a graph can be read; a page of more says so."""

Place = tuple[int, int]
"""Layer and module of a segment."""


@dataclass(frozen=True)
class TaskTest:
    """Whether sharing predicts something, by permuting tasks.

    Attributes:
        what: it predicts, in words. correlation, p, permutations: of the test.
    """

    what: str
    correlation: float
    p: float
    permutations: int


@dataclass(frozen=True)
class TaskView:
    """What is known of the tasks of a network, as plain data; what is empty is left out of the page.

    Attributes:
        name: of the network or file. tasks: names. layers, modules: room for segments.
        users: the tasks of every segment that has some. shared: segments that two tasks share, ``[tasks, tasks]``.
        facts: columns of the table of tasks: a title, and words for each task.
        unit: of scores and losses. similarity: CKA, ``[layers, tasks, tasks]``. drops: what a task loses without a
            segment. relevance: a task's share of relevance in the layer, by segment.
        times, scores: names of times, and scores ``[times, tasks]``. learnt: the time at which each task was learnt.
        forgetting: sentences on them. transfer: what task u gives to t, ``[t, u]``. tests: of what sharing predicts.
    """

    name: str
    tasks: tuple[str, ...]
    layers: int
    modules: int
    users: dict[Place, tuple[str, ...]]
    shared: tuple[tuple[int, ...], ...]
    facts: dict[str, tuple[str, ...]] = field(default_factory=dict)
    unit: str = "points"
    similarity: tuple[tuple[tuple[float, ...], ...], ...] = ()
    drops: dict[Place, dict[str, float]] = field(default_factory=dict)
    relevance: dict[Place, dict[str, float]] = field(default_factory=dict)
    times: tuple[str, ...] = ()
    scores: tuple[tuple[float, ...], ...] = ()
    learnt: tuple[int, ...] = ()
    forgetting: tuple[str, ...] = ()
    transfer: tuple[tuple[float, ...], ...] = ()
    tests: tuple[TaskTest, ...] = ()


def tasks_page(view: TaskView) -> str:
    """A page that needs no network, no script and no other file.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    title = f"Tasks of {view.name}"
    parts = [el("header", el("h1", title), el("p", _summary(view))), _paths(view), _sharing(view)]
    if view.scores:
        parts.append(_over_time(view))
    if view.similarity:
        parts.append(_similarity(view))
    if view.drops or view.relevance:
        parts.append(_worth(view))
    if view.transfer:
        parts.append(_transfer(view))
    if view.tests:
        parts.append(_tests(view))
    return document(title, *parts)


def _summary(view: TaskView) -> str:
    private = sum(len(names) == 1 for names in view.users.values())
    room = view.layers * view.modules
    return (
        f"{len(view.tasks)} tasks in {view.layers} layers of {view.modules} segments: {private} segments are private, "
        f"{len(view.users) - private} are shared, and {room - len(view.users)} are of no task."
    )


def _paths(view: TaskView) -> Markup:
    own = {name: [place for place, names in view.users.items() if name in names] for name in view.tasks}
    private = {name: [place for place in own[name] if len(view.users[place]) == 1] for name in view.tasks}
    rows = [
        [name, str(len(own[name])), str(len(private[name])), *(words[number] for words in view.facts.values())]
        for number, name in enumerate(view.tasks)
    ]
    headers = ["task", "segments", "of them private", *view.facts]
    listed = table(headers, rows, caption="Private: no other task goes through it.")
    if view.layers * view.modules > MOST or len(view.tasks) > MOST_TASKS:
        return section("Where tasks go", listed, el("p", "They are too many for a picture."))
    return section(
        "Where tasks go",
        listed,
        picture(
            pictures.graph(view.users, view.tasks, view.layers, view.modules),
            f"Graph of {len(view.tasks)} tasks and {len(view.users)} segments in {view.layers} layers.",
            "A box is a segment, and a dot in it a task that goes through it. Boxes with one dot have the colour of "
            "their task; dashed ones are of no task. Lines follow each task from layer to layer.",
        ),
    )


def _sharing(view: TaskView) -> Markup:
    if len(view.tasks) > MOST:
        return section("Who shares what", el("p", "They are too many for a picture."))
    most = max(row[i] for i, row in enumerate(view.shared))
    return section(
        "Who shares what",
        picture(
            pictures.matrices(
                [("segments in common", view.shared)], view.tasks, view.tasks, form="{:.0f}", scale="segments", low=0,
                high=most,
            ),
            f"Matrix of the segments that each two of {len(view.tasks)} tasks have in common.",
            "Segments that two tasks both go through. On the diagonal: all segments of a task.",
        ),
    )  # fmt: skip


def _over_time(view: TaskView) -> Markup:
    framed = [(row, column) for column, row in enumerate(view.learnt)]
    caption = "Each row is a time of the training, and each column a task."
    caption += " Frames: the task had just been learnt." if framed else " All tasks are trained at once."
    return section(
        "What is forgotten",
        *(el("p", words) for words in view.forgetting),
        picture(
            pictures.matrices(
                [("score of each task", view.scores)], view.times, view.tasks, form="{:.0f}", scale=view.unit,
                framed=framed,
            ),
            f"Matrix of the scores of {len(view.tasks)} tasks at {len(view.times)} times.",
            caption,
        ),
    )  # fmt: skip


def _similarity(view: TaskView) -> Markup:
    found = [(f"layer {number}", _without_diagonal(matrix)) for number, matrix in enumerate(view.similarity)]
    return section(
        "Who is like whom",
        picture(
            pictures.matrices(found, view.tasks, view.tasks, form="{:.2f}", scale="CKA", low=0, high=1),
            f"Matrices of the similarity (CKA) of {len(view.tasks)} tasks in {view.layers} layers.",
            "Similarity (CKA) of what two tasks make of the same samples, behind each layer. 1: equal up to rotation "
            "and scale; 0 is as unlike as chance.",
        ),
    )


def _worth(view: TaskView) -> Markup:
    places = sorted({*view.drops, *view.relevance})
    columns = [f"{layer}.{module}" for layer, module in places]
    blocks = []
    if view.drops:
        rows = [[view.drops.get(place, {}).get(name) for place in places] for name in view.tasks]
        blocks.append(picture(
            pictures.matrices(
                [("lost without the segment", rows)], view.tasks, columns, form="{:.0f}", scale=view.unit, signed=True,
                across="segment (layer.module)",
            ),
            f"Matrix of what {len(view.tasks)} tasks lose without each of {len(places)} segments.",
            "What a task loses where one segment gives zeros; nothing is trained again. White: not on its path.",
        ))  # fmt: skip
    if view.relevance:
        shares = [
            [None if (x := view.relevance.get(place, {}).get(name)) is None else 100 * x for place in places]
            for name in view.tasks
        ]
        blocks.append(picture(
            pictures.matrices(
                [("relevance of the segment", shares)], view.tasks, columns, form="{:.0f}", scale="% of the layer",
                low=0, high=100, across="segment (layer.module)",
            ),
            f"Matrix of the relevance of {len(places)} segments for {len(view.tasks)} tasks.",
            "The share of a layer's relevance (LRP) that a segment's weights have for a task. Shares of a task in a "
            "layer sum to 100 %. A shared segment with unlike shares matters to one task more than to another.",
        ))  # fmt: skip
    return section("What segments are worth to whom", *blocks)


def _transfer(view: TaskView) -> Markup:
    return section(
        "What tasks give to each other",
        picture(
            pictures.matrices(
                [("gained from training with", _without_diagonal(view.transfer))], view.tasks, view.tasks,
                form="{:+.1f}", scale=view.unit, signed=True, across="the other task", down="gains",
            ),
            f"Matrix of what {len(view.tasks)} tasks gain from each other.",
            "The score of the task on the left with all tasks, less that of a training without the task below. One "
            "training each: differences of single runs are mostly noise.",
        ),
    )  # fmt: skip


def _tests(view: TaskView) -> Markup:
    rows = [[test.what, f"{test.correlation:+.2f}", f"{test.p:.3f}", f"{test.permutations:,}"] for test in view.tests]
    return section(
        "Does sharing predict it?",
        table(
            ("what", "correlation", "p", "permutations"), rows,
            caption="Over pairs of tasks, with tasks permuted (Mantel's test, one-sided). With few tasks it has little "
            "power.",
        ),
    )  # fmt: skip


def _without_diagonal(matrix: Sequence[Sequence[float]]) -> list[list[float | None]]:
    return [[None if i == j else x for j, x in enumerate(row)] for i, row in enumerate(matrix)]
