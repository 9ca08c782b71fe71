"""Columns of tables that take more than one row, or more than arithmetic."""

from typing import Any

import pandas as pd
from scipy import stats

from benchmarks.unit import share

SETTING = ["result", "target", "epochs", "method", "step_rule"]
BESIDE = {"vgg16-bn": ("584.16 KB", "129 KB"), "mlp-gsc": ("87.52 KB",)}  # published: what the aims were set by
AGENTS = ("terminal", "raw", "potential", "sparsity")


def named(frame: pd.DataFrame) -> pd.DataFrame:
    """``how``: the method, and what was special about its training; the learning rate, where no more than that differs
    (not every older row says its own)."""
    frame = frame.assign(how=[_how(row._asdict()) for row in frame.itertuples(index=False)])
    for key, mine in frame.groupby(["result", "how", "epochs"]):
        if mine.get("lr", pd.Series()).nunique() > 1:
            frame.loc[mine.index, "how"] = [f"{key[1]}, learning rate {lr:g}" for lr in mine["lr"]]
    return frame


def _how(row: dict[str, Any]) -> str:
    def has(key: str) -> Any:
        return None if pd.isna(row.get(key)) else row.get(key)

    text = row["method"].removeprefix("channels + ")
    if row["method"].startswith("channels + "):
        text = f"{100 * row['macs_left'] / row['macs']:.0f} % of the multiplications, then {text}"
    text += f", damping {row['damping']:g}" if has("damping") else ""
    text += ", steps by the rate" if has("step_rule") == "rate" else ""
    text += ", without dropout" if has("dropout") is False else ""
    text += ", gradual lambda" if has("gradual") else ""
    text += f", floor {100 * share(row['min_kept']):g} %" if has("min_kept") else ""
    return text + (f", {row['significand']:g} significant bits" if has("significand") else "")


def floats(frame: pd.DataFrame) -> pd.DataFrame:
    """``float_accuracy``: mean over seeds of the float networks that the first method of each file started from."""
    first = frame.drop_duplicates(["result", "seed"]).groupby("result")["baseline_accuracy"].mean()
    return frame.assign(float_accuracy=frame["result"].map(first))


def gains(frame: pd.DataFrame) -> pd.DataFrame:
    """``gain``: points of validation accuracy against the recipe as it is in the same setting and seed; else of steps
    by the rate against those of the range."""
    frame = frame.assign(gain=None)
    for base, keys in (({"lever": "as it is"}, SETTING), ({"step_rule": "range"}, [*SETTING[:-1], "lever"])):
        plain = frame.query(" and ".join(f"{k} == {v!r}" for k, v in base.items()))
        known = plain.set_index([*keys, "seed"])["validation_accuracy"].to_dict()
        for i, row in frame.iterrows():
            before = known.get(tuple(row[key] for key in [*keys, "seed"]))
            if before is not None and pd.isna(row["gain"]) and any(row[k] != v for k, v in base.items()):
                frame.loc[i, "gain"] = row["validation_accuracy"] - before
    return frame


def best(frame: pd.DataFrame) -> pd.DataFrame:
    """At each size of a network the rows with most seeds, then the longest, then the best on validation data; and the
    published points that the aims were set by."""
    frame = named(frame)
    frame["name"] = frame["result"].replace("combined", "vgg16-bn").str.removeprefix("ecqx/")
    frame["whole"] = frame["epochs"] + frame["channel_epochs"].fillna(0)
    kept = []
    for name, mine in frame.groupby("name", sort=False):
        ours = mine[mine["source"].isna()].sort_values("bytes", ascending=False)
        for _, sized in ours.groupby("target", sort=False):
            groups = [part for _, part in sized.groupby(["whole", "how", "lr"], dropna=False)]
            ranks = [(len(g), g["whole"].iloc[0], g["validation_accuracy"].mean()) for g in groups]
            kept.append(groups[ranks.index(max(ranks))].assign(network=name))
        others = mine[mine["source"].notna() & mine["target"].isin(BESIDE.get(name, ()))]
        told = [f"published: {m.split(',')[0]} ({s})" for m, s in zip(others["method"], others["source"], strict=True)]
        kept.append(others.assign(how=told, network=f"{name} of others", seed=None))
    return pd.concat([part for part in kept if len(part)])


def sooner(frame: pd.DataFrame) -> pd.DataFrame:
    """Evaluations until each searcher has the score that the terminal-reward agent ended with, goal by goal."""
    found = []
    for (network, method), mine in frame.groupby(["experiment", "method"], sort=False):
        goals = frame[(frame["experiment"] == network) & (frame["method"] == "terminal")]
        for seed, goal in zip(goals["seed"], goals["score"], strict=True):
            for row in mine.itertuples():
                if len(mine) > 1 and row.seed != seed:
                    continue  # only a searcher without a seed meets the goal of every seed
                count = min((n for n, s in row.history if s >= goal - 1e-12), default=float("inf"))
                unit = row.layers if method in ("raw", "potential") else 1
                found.append({
                    "network": network, "method": method, "met": int(count < float("inf")), "evaluations": count,
                    "share": count / row.budget, "budget": row.budget, "id": row.id,
                    "episodes": count / unit if method in AGENTS else None,
                })  # fmt: skip
    return pd.DataFrame(found)


def by_machine(frame: pd.DataFrame) -> pd.DataFrame:
    """A row for each network and machine; ``mix`` in words, and ``ratio`` to the least energy there.

    That is taken of networks within a point of the best on validation data.
    """
    machines = [column.partition("@")[2] for column in frame if column.startswith("microjoules@")]
    found = []
    for row in frame.to_dict("records"):
        shared = {key: value for key, value in row.items() if "@" not in key} | {"mix": mix_of(row)}
        for machine in machines:
            own = {key.removesuffix(f"@{machine}"): value for key, value in row.items() if key.endswith(f"@{machine}")}
            found.append(shared | own | {"machine": machine})
    whole = pd.DataFrame(found)
    good = whole[whole["validation_accuracy"] >= whole["validation_accuracy"].max() - 1]
    least = good.groupby("machine")["microjoules"].min()
    return whole.assign(ratio=whole["microjoules"] / whole["machine"].map(least), good=whole.index.isin(good.index))


def mix_of(row: dict[str, Any]) -> str:
    """Bits, zeros and channels of a network."""
    pattern = "" if row["pattern"] == "none" else f", {row['pattern']} among them"
    fewer = "" if row["channels"] == 1 else f", {100 * row['channels']:g} % of the operations"
    return f"{row['bits']:g} bits, {row['sparsity']:.0f} % zeros{pattern}{fewer}"


def best_mixes(frame: pd.DataFrame) -> pd.DataFrame:
    """Of :func:`by_machine`: the network of least energy on each machine (``best_on``), on all machines."""
    long = by_machine(frame)
    good = long[long["good"]]
    parts = []
    for machine, mine in good.groupby("machine", sort=False):
        chosen = mine.loc[mine["microjoules"].idxmin(), "key"]
        parts.append(long[long["key"] == chosen].assign(best_on=machine))
    return pd.concat(parts)


def own_best(frame: pd.DataFrame) -> pd.DataFrame:
    """Of :func:`best_mixes`: each where it is best."""
    found = best_mixes(frame)
    return found[found["best_on"] == found["machine"]]


RESOURCES, KNOWLEDGE = "2. better use of resources", "3. tasks use each other's knowledge"
CLAIMS: tuple[tuple[str, str, str, str, str | None], ...] = (
    ("1. no forgetting", "accuracy, over the same network in sequence", "accuracy", "random", "random, in sequence"),
    ("1. no forgetting", "points forgotten, fewer than in sequence", "-forgetting", "random", "random, in sequence"),
    (RESOURCES, "accuracy, over one small network for each task", "accuracy", "random", "one each"),
    (RESOURCES, "accuracy, over one trunk with heads", "accuracy", "random", "trunk"),
    (
        RESOURCES, "the same, batches of all: over one small network for each", "accuracy",
        "random, batches of all", "one each, batches of all",
    ),
    (
        RESOURCES, "the same, batches of all: over one trunk", "accuracy", "random, batches of all",
        "trunk, batches of all",
    ),
    (KNOWLEDGE, "accuracy, over a path-sized network for each", "accuracy", "random", "path-sized each"),
    (KNOWLEDGE, "gain from each other task, left out", "transfer", "random", None),
    (KNOWLEDGE, "correlation of sharing and gain", "transfer_correlation", "random", None),
    ("4. relations can be read off", "correlation of sharing and similarity", "cka_correlation", "random", None),
    ("4. relations can be read off", "rank correlation of relevance and loss", "relevance_and_drop", "random", None),
)  # fmt: skip
"""PaRT's claims (arXiv 2201.09534, abstract): what measures each, the column that says it (with a minus where less is
better), the method that it is of, and the one beside it."""


def claims(frame: pd.DataFrame) -> pd.DataFrame:
    """What came of each claim for random paths: mean over seeds, its interval of 95 % (Student's t), and a verdict."""
    found = []
    for experiment, mine in frame.groupby("experiment", sort=False):
        for claim, measure, column, own, other in CLAIMS:
            ours = mine[mine["method"] == own].set_index("seed")
            name, sign = column.removeprefix("-"), -1 if column.startswith("-") else 1
            if name not in ours:
                continue
            values = sign * ours[name]
            if other is not None:
                values = values - sign * mine[mine["method"] == other].set_index("seed")[name]
            values = values.dropna().astype(float)
            if len(values) < 2:
                continue
            low, high = stats.t.interval(0.95, len(values) - 1, values.mean(), values.sem() or 1e-12)
            verdict = "holds" if low > 0 else "does not hold" if high < 0 else "cannot be told"
            found.append({
                "experiment": experiment, "claim": claim, "measure": measure, "value": values.mean(), "low": low,
                "high": high, "seeds": len(values), "verdict": verdict, "id": None,
            })  # fmt: skip
    return pd.DataFrame(found)


RIVALS = {"over_paper": "backprop of the paper", "over_tuned": "backprop", "over_ridge": "backprop, ridge"}
FINDINGS = {
    "little data": "accuracy", "95 % pruned": "pruned_95", "Gaussian noise": "gaussian",
    "salt and pepper": "salt_and_pepper", "blur": "blurred",
}  # fmt: skip


ENOUGH = 3  # seeds for a verdict


def contests(frame: pd.DataFrame) -> pd.DataFrame:
    """A row for each rule, seed, number of images and finding: points over each backprop with that seed, and what they
    say of all seeds: ``holds``, ``does not hold``, ``only against under-trained backprop``, or ``undecided``; of fewer
    than three, ``too few seeds``."""
    found = []
    rivals = frame[frame["rule"].isin(RIVALS.values())].set_index(["rule", "images", "seed"])
    for _, row in frame[~frame["rule"].isin(RIVALS.values())].iterrows():
        for finding, key in FINDINGS.items():
            mine = {"id": row["id"], "rule": row["rule"], "images": row["images"], "seed": row["seed"]}
            for column, rival in RIVALS.items():
                place = (rival, row["images"], row["seed"])
                mine[column] = row[key] - rivals.loc[place, key] if place in rivals.index else None
            found.append(mine | {"finding": finding})
    made = pd.DataFrame(found)
    verdicts = {}
    for key, part in made.groupby(["rule", "images", "finding"]):
        paper, tuned = (part[name].dropna() for name in ("over_paper", "over_tuned"))
        verdicts[key] = _verdict(paper, tuned)
    return made.assign(
        verdict=[verdicts[key] for key in zip(made["rule"], made["images"], made["finding"], strict=True)]
    )


def _verdict(paper: pd.Series, tuned: pd.Series) -> str:
    if not len(paper) or not len(tuned):
        return "not measured"
    if min(len(paper), len(tuned)) < ENOUGH:
        return "too few seeds"
    if (tuned > 0).all():
        return "holds" if (paper > 0).all() else "undecided"
    if (tuned <= 0).all():
        return "only against under-trained backprop" if (paper > 0).all() else "does not hold"
    return "undecided"


def on_the_way(frame: pd.DataFrame) -> pd.DataFrame:
    """``after_5``, and so on: the accuracy after so many epochs of a row's ``curve``; ``near``: after how many of them
    it was first within a point of the curve's best."""
    made = [
        {f"after_{epochs:g}": value for epochs, value in curve}
        | {"near": min(epochs for epochs, value in curve if value >= max(v for _, v in curve) - 1)}
        for curve in frame["curve"]
    ]
    return frame.join(pd.DataFrame(made, index=frame.index))


def against_orion(frame: pd.DataFrame) -> pd.DataFrame:
    """``against_orion``: the time of Orion's program of the same network and seed over that of the row."""
    theirs = frame[frame["program"].str.contains("Orion")].set_index(["model", "seed"])["milliseconds"]
    keys = zip(frame["model"], frame["seed"], strict=True)
    return frame.assign(against_orion=[theirs.get(key) for key in keys] / frame["milliseconds"])
