"""Comparisons of volatility, hierarchies, portfolios, Bayesian models and networks with peers."""

from comparison import Comparison, Peer

VOLATILITY = (
    Comparison(
        "garch",
        "GARCH(1,1), 2000 rows",
        "{series} series",
        "jaxfc_ms",
        (
            Peer("arch", "arch_over_ours", "arch_ms"),
            Peer("multigarch", "multigarch_over_ours", "multigarch_ms"),
        ),
        compiling="compile_s",
        note="The peers loop over the series; 20 of them were timed for 200 and 1000.",
    ),
    Comparison(
        "dcc",
        "DCC in two steps, 2000 rows",
        "{series} series",
        "jaxfc_s",
        (
            Peer("multiarch", "multiarch_over_ours", "multiarch_s"),
            Peer("multigarch", "multigarch_over_ours", "multigarch_s"),
            Peer("pymgarch", "pymgarch_over_ours"),
        ),
        compiling="compile_s",
        note="Long runs: the median of {calls} after a first.",
    ),
    Comparison(
        "dcc",
        "standard errors of a DCC",
        "{series} series",
        "jaxfc_errors_s",
        (Peer("multiarch", "errors_multiarch_over_ours", "multiarch_errors_s"),),
        compiling="compile_errors_s",
        note="Long runs: the median of {calls} after a first.",
    ),
    Comparison(
        "composite",
        "DCC by contiguous pairs, 2000 rows",
        "{series} series",
        "jaxfc_s",
        (
            Peer("multigarch", "multigarch_over_ours", "multigarch_s"),
            Peer("pymgarch", "pymgarch_over_ours", "pymgarch_s"),
        ),
        compiling="compile_s",
        note="Long runs: the median of {calls} after a first.",
    ),
    Comparison(
        "rolling",
        "DCC in rolling windows of 1000 rows",
        "{windows} windows, {series} series",
        "jaxfc_s",
        (Peer("multigarch", "multigarch_over_ours", "multigarch_s"),),
        compiling="compile_s",
        note="Long runs: the median of {calls} after a first.",
    ),
)

HIERARCHIES = (
    Comparison(
        "reconcile_arrays",
        "reconciliation of arrays",
        "{series} series, {method}",
        "jaxfc_ms",
        (
            Peer("hierarchicalforecast", "ratio", "hierarchicalforecast_ms"),
            Peer(
                "hierarchicalforecast, our forming of errors counted",
                "ratio_with_forming",
                "hierarchicalforecast_ms",
            ),
        ),
        compiling="first_call_s",
        note="Ours from errors, theirs from values and fitted values.",
    ),
    Comparison(
        "reconcile_frames",
        "reconciliation of data frames",
        "{series} series, {method}",
        "jaxfc_ms",
        (Peer("hierarchicalforecast", "ratio", "hierarchicalforecast_ms"),),
        note="hierarchicalforecast: one second call.",
    ),
    Comparison(
        "reconcile_origins",
        "reconciliation at rolling origins",
        "{origins} × {series}, {method}",
        "jaxfc_s",
        (Peer("hierarchicalforecast in a loop", "ratio", "hierarchicalforecast_s"),),
        compiling="first_call_s",
        note="Theirs at a tenth of the origins, extrapolated.",
    ),
)

PORTFOLIOS = (
    Comparison(
        "portfolio",
        "portfolio weights from 1000 rows of returns",
        "{assets} assets, {rule}",
        "jaxfc_ms",
        (Peer("skfolio", "skfolio_over_ours", "skfolio_ms"),),
        compiling="compile_s",
    ),
    Comparison(
        "portfolio_windows",
        "the same in rolling windows, ours in one program",
        "{windows} windows, {assets} assets, {rule}",
        "jaxfc_s",
        (Peer("skfolio in a loop", "skfolio_over_ours", "skfolio_s"),),
        compiling="compile_s",
        note="skfolio in {peer_windows} windows, extrapolated.",
    ),
)

BAYES = (
    Comparison(
        "ipca",
        "instrumented PCA by alternating least squares",
        "{rows} × {assets} × {characteristics} × {factors}",
        "jaxfc_fit_ms",
        (Peer("ipca", "fit_ratio", "ipca_fit_ms"),),
        compiling="jaxfc_first_call_s",
    ),
)

NETWORKS = (
    Comparison(
        "recursive",
        "training step of a recursive network, float32",
        "mixing by {mixing}",
        "ours_ms",
        (Peer("PyTorch", "ratio", "torch_ms"),),
        compiling="compile_s",
    ),
    Comparison(
        "recursive_inference",
        "its forecast from one window",
        "mixing by {mixing}",
        "cpu_ms",
        (Peer("PyTorch, the network alone", None, "torch_cpu_ms"),),
        compiling="compile_s",
    ),
)
