"""Tables and sentences of the study of views, in Markdown; every number is one that the run made,
beside those of the reference note."""

from collections.abc import Mapping

import pandas as pd

from experiments.m6_answers import markdown, number

NONE, RETURN, EXPECTED, LIKELIHOOD = "no view", "return", "expected return", "likelihood"
QUINTILES = ("q1", "q2", "q3", "q4", "q5")
# Of the same round by an earlier sampler (bayes.md, section 2): the share of draws that views leave
# and, of the second view, the means without it and with it.
NOTED_KEPT = {"0.02 +- 0.1": 0.98, "0.05 +- 0.02": 0.35, "0.08 +- 0.01": 0.08}
NOTED_VIEW = "0.05 +- 0.02"
NOTED_MEANS = {
    "TLT": (0.001, 0.042),
    "IEF": (0.000, 0.017),
    "LQD": (0.000, 0.014),
    "XLF": (-0.002, -0.026),
}
HEADER = """The M6 model at 2023-01-06, views on the return of TLT over the coming four weeks.
`return`: the view is a second opinion on the return itself; `expected return`: an observation of
what is expected of it given the factors; both by weights on draws that know no view. `likelihood`:
the latter in the likelihood, sampled anew. `with_views` refuses what leaves less than a tenth."""


def views_answers(lines: pd.DataFrame, realised: Mapping[str, float]) -> str:
    """What views leave, what they move, and whether both ways to put them agree."""
    text = ["# A view on TLT", HEADER, "## What is left of the draws", left(lines)]
    text += ["## Means of the four weeks", means(lines, realised)]
    text += [f"## The note's figures, view {NOTED_VIEW}", noted(lines)]
    text += ["## Quintile probabilities of TLT", quintiles(lines)]
    text += ["## By weights and in the likelihood", agreement(lines)]
    return "\n\n".join(text) + "\n"


def left(lines: pd.DataFrame) -> str:
    """The effective share of draws and the log-odds of every view, and diagnostics of chains."""
    rows = []
    for (view, how), own in lines.groupby(["view", "how"], sort=False):
        first = own.iloc[0]
        kept = "" if how in (NONE, LIKELIHOOD) else f"{first['kept']:.1%}"
        note = f"{NOTED_KEPT[str(view)]:.0%}" if how == RETURN else ""
        chains = [number(first[name], 4) for name in ("max R-hat", "min ESS")]
        odds = "" if pd.isna(first["log-odds"]) else f"{first['log-odds']:.2f}"
        rows.append([str(view), str(how), kept, note, odds, *chains, f"{first['RPS']:.5f}"])
    heads = ["view", "how", "kept", "noted", "log-odds", "max R-hat", "min ESS", "RPS of the round"]
    return markdown(heads, rows)


def means(lines: pd.DataFrame, realised: Mapping[str, float]) -> str:
    """The mean of every watched asset, with its standard error."""
    rows = []
    for (view, how), own in lines.groupby(["view", "how"], sort=False):
        by_asset = own.set_index("asset")
        cells = [f"{by_asset['mean'][a]:+.4f} ({by_asset['error'][a]:.4f})" for a in realised]
        rows.append([str(view), str(how), *cells])
    rows.append(["what came", "", *(f"{value:+.4f}" for value in realised.values())])
    return markdown(["view", "how", *realised], rows)


def noted(lines: pd.DataFrame) -> str:
    """Moves of the means beside those of the note."""
    rows = []
    for asset, (before, after) in NOTED_MEANS.items():
        ours = [pick(lines, *which, asset) for which in ((NONE, "none"), (RETURN, NOTED_VIEW))]
        move = float(ours[1]["mean"] - ours[0]["mean"])
        rows.append([asset, f"{before:+.3f} to {after:+.3f}", f"{after - before:+.3f}"])
        rows[-1] += [f"{ours[0]['mean']:+.4f} to {ours[1]['mean']:+.4f}", f"{move:+.4f}"]
    return markdown(["asset", "note", "move", "here", "move"], rows)


def quintiles(lines: pd.DataFrame) -> str:
    """Probabilities of the five classes of TLT, worst first."""
    own = lines[lines["asset"] == "TLT"]
    rows = [
        [str(line["view"]), str(line["how"]), *(f"{line[q]:.3f}" for q in QUINTILES)]
        for _, line in own.iterrows()
    ]
    return markdown(["view", "how", "lowest", "second", "third", "fourth", "highest"], rows)


def agreement(lines: pd.DataFrame) -> str:
    """Means of a view in the likelihood less those by weights, in standard errors of both."""
    rows = []
    for view in dict.fromkeys(lines.loc[lines["how"] == LIKELIHOOD, "view"]):
        for asset in dict.fromkeys(lines["asset"]):
            sampled, weighted = (pick(lines, how, view, asset) for how in (LIKELIHOOD, EXPECTED))
            gap = float(sampled["mean"] - weighted["mean"])
            error = float((sampled["error"] ** 2 + weighted["error"] ** 2) ** 0.5)
            largest = max(abs(sampled[q] - weighted[q]) for q in QUINTILES)
            rows.append([view, asset, f"{gap:+.4f}", f"{gap / error:+.1f}", f"{largest:.3f}"])
    heads = ["view", "asset", "difference of means", "in standard errors", "quintiles, at most"]
    return markdown(heads, rows)


def pick(lines: pd.DataFrame, how: str, view: str, asset: str) -> pd.Series:
    """One line."""
    found = lines[(lines["how"] == how) & (lines["view"] == view) & (lines["asset"] == asset)]
    return found.iloc[0]
