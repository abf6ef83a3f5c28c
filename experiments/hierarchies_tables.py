"""Tables and sentences of the study of hierarchies, in Markdown."""

import pandas as pd

from experiments.hierarchies_data import (
    PUBLISHED_BOTTOM_UP,
    PUBLISHED_RELATIVE_MSE,
    PUBLISHED_SCRPS,
)
from experiments.hierarchies_methods import OURS, PEER, TWINS

# The projections of which the baselines print the best one, as either package calls them.
PUBLISHED_TRACES = (
    *("OLS", "WLS, variances", "MinT, shrunk", "MinT, shrunk (centred)"),
    *("MinTrace ols", "MinTrace wls_var", "MinTrace mint_shrink"),
)
READING = """RMSSE: root of the mean squared error over origins, steps and nodes of a level, each
node in units of the naive forecast's in sample (returns: of the zero forecast's); "all" is the mean
over levels, under the root. CRPS and the energy score (of all nodes jointly, step by step) are in
the same units; sCRPS pools all nodes; the log score is that of the bottom series jointly, in nats,
where it exists. DM is the statistic of Diebold and Mariano for "all" against base, with its
two-sided p-value; negative is better than base. Laws of ours have shrunk correlations of all
residuals whatever the method; hierarchicalforecast's are its default, the correlations of W."""
SCORES = ("RMSSE all", "CRPS", "sCRPS", "energy", "log score")


def answers(table: pd.DataFrame) -> list[str]:
    """Title, the published figures beside ours, and a table of each part."""
    text = ["# Hierarchies: reconciled against base forecasts, out of sample"]
    text.append(READING)
    split, rolling = (table[table["part"] == part] for part in ("split", "rolling"))
    if len(rolling):
        text += ["## RMSSE relative to base, rolling origins", relative(rolling)]
    if len(split):
        text += ["## Published figures", published(split)]
    for (part, data, source), group in table.groupby(["part", "data", "base"], sort=False):
        count = int(group["origins"].iloc[0])
        title = f"## {data}, {part}: {count} origin{'s' * (count > 1)}, base {source}"
        text += [title, scores(group)]
        if "DM all" in group and group["DM all"].notna().any():
            text.append(verdict(group))
        text += failures(group)
        if (group["package"] == PEER).any():
            text.append(twins(group))
    return text


def relative(rolling: pd.DataFrame) -> str:
    """RMSSE of all levels over that of the base forecasts, ours; a star where a test is clear."""
    ours = rolling[rolling["package"] == OURS]
    columns = {}
    for data, group in ours.groupby("data", sort=False):
        own = group.set_index("method")
        ratio = own["RMSSE all"] / own.loc["base", "RMSSE all"]
        p = own["p all"] if "p all" in own else pd.Series(float("nan"), own.index)
        stars = p.lt(0.05).map({True: " *", False: ""})
        columns[data] = (ratio.map("{:.3f}".format) + stars).where(ratio.notna(), "failed")
    table = pd.DataFrame(columns).reindex(ours["method"].unique()).fillna("")
    lines = [
        f"| {name} | " + " | ".join(row) + " |"
        for name, row in zip(table.index, table.to_numpy(), strict=True)
    ]
    head = "| method | " + " | ".join(table.columns) + " |"
    note = "A star: different from base at 5 % (Diebold-Mariano)."
    return "\n".join([note, "", head, "|---" * (1 + table.shape[1]) + "|", *lines])


def published(split: pd.DataFrame) -> str:
    """sCRPS and relative MSE of bottom-up and the best MinTrace beside the printed ones."""
    lines = []
    for (data, source), group in split.groupby(["data", "base"], sort=False):
        for package in (OURS, PEER):
            own = group[group["package"] == package].set_index("method")
            if own.empty:
                continue
            bottom = own.loc["bottom-up" if package == OURS else "BottomUp"]
            traces = own[own.index.isin(PUBLISHED_TRACES)]
            best = traces["sCRPS"].idxmin()
            best_error = traces["relative MSE"].min()
            printed = PUBLISHED_RELATIVE_MSE[data]
            lines.append(
                f"| {data} | {source} | {package} | {bottom['sCRPS']:.4f} "
                f"({PUBLISHED_BOTTOM_UP[data]:.4f}) | {traces['sCRPS'].min():.4f}, {best} "
                f"({PUBLISHED_SCRPS[data]:.4f}) | {bottom['relative MSE']:.4f} ({printed[0]:.4f}) "
                f"| {best_error:.4f} ({printed[1]:.4f}) |"
            )
    head = (
        "| data | base | package | sCRPS bottom-up | sCRPS, best of OLS, WLS and MinT "
        "| relative MSE bottom-up | relative MSE, best |"
    )
    note = "In brackets: printed with hierarchicalforecast's baselines (AutoARIMA, normality)."
    return "\n".join([note, "", head, "|---" * 7 + "|", *lines])


def scores(group: pd.DataFrame) -> str:
    """A line for each method: scores, and tests where there are many origins."""
    levels = [c for c in group.columns if c.startswith("RMSSE ") and group[c].notna().any()]
    levels = [c for c in levels if c != "RMSSE all"]
    tested = "DM all" in group and group["DM all"].notna().any()
    head = ["package", "method", *levels, *SCORES, *(["DM (p)"] if tested else [])]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for _, row in group[group["failed"] == 0].iterrows():
        cells = [row["package"], row["method"]]
        cells += [number(row[name]) for name in (*levels, *SCORES)]
        if tested:
            cells.append(
                "" if pd.isna(row["DM all"]) else f"{row['DM all']:.2f} ({row['p all']:.3f})"
            )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def number(value: float) -> str:
    """Four digits, nothing for NaN."""
    return "" if pd.isna(value) else f"{value:.4g}"


def verdict(group: pd.DataFrame) -> str:
    """Which of our methods are better and worse than base at the 5 % level."""
    ours = group[(group["package"] == OURS) & group["DM all"].notna()]
    clear = ours[ours["p all"] < 0.05]
    better = [f"{m} ({s:.1f})" for m, s in clear[["method", "DM all"]].to_numpy() if s < 0]
    worse = [f"{m} ({s:.1f})" for m, s in clear[["method", "DM all"]].to_numpy() if s > 0]
    return (
        f"Better than base at 5 % (Diebold-Mariano statistic): {', '.join(better) or 'none'}. "
        f"Worse: {', '.join(worse) or 'none'}. No difference shown: "
        f"{len(ours) - len(clear)} of {len(ours)}."
    )


def failures(group: pd.DataFrame) -> list[str]:
    """What raised."""
    bad = group[group["failed"] > 0]
    return [
        f"{row['package']} {row['method']} failed at {row['failed']} of {row['origins']} origins: "
        f"`{row['error'][:150]}...`."
        for _, row in bad.iterrows()
    ]


def twins(group: pd.DataFrame) -> str:
    """How far the means of the same method in both packages are apart."""
    names = {theirs: ours for ours, theirs in TWINS.items()}
    good = group[group["gap"].notna()] if "gap" in group else group[:0]
    pairs = zip(good["method"], good["gap"], strict=True)
    listed = ", ".join(f"{names[method]} {gap:.0e}" for method, gap in pairs)
    return (
        f"Largest difference of means to the same method of the peer, in units of scale: {listed}."
    )
