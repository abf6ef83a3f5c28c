"""Comparisons of factor models, state spaces and regimes with peers."""

from comparison import Comparison, Peer

FACTORS = (
    Comparison(
        "em_iteration",
        "EM iteration, law of the first state estimated",
        "{size}",
        "ours_estimated_ms",
        (Peer("statsmodels", "statsmodels_ratio", "statsmodels_ms"),),
        compiling="ours_compile_s",
    ),
    Comparison(
        "em_iteration",
        "EM iteration, stationary law of the first state",
        "{size}",
        "ours_stationary_ms",
        (Peer("nowcastbox", "nowcastbox_ratio", "nowcastbox_ms"),),
    ),
    Comparison(
        "em_fit",
        "whole fit by EM",
        "{size}",
        "ours_ms",
        (
            Peer("statsmodels", "statsmodels_ratio", "statsmodels_ms"),
            Peer("nowcastbox", "nowcastbox_ratio", "nowcastbox_ms"),
        ),
        compiling="ours_compile_s",
    ),
    Comparison(
        "ar_iteration",
        "EM iteration with AR(1) errors",
        "{size}",
        "ours_ms",
        (
            Peer("statsmodels", "statsmodels_ratio", "statsmodels_ms"),
            Peer("nowcastbox", "nowcastbox_ratio", "nowcastbox_ms"),
        ),
        compiling="ours_compile_s",
    ),
    Comparison(
        "smoother",
        "moments of the factors, complete data",
        "{size}",
        "closed_form_ms",
        (
            Peer("dynamax", "dynamax_ratio", "dynamax_ms"),
            Peer("dynamax, its fastest", "fastest_dynamax_ratio"),
        ),
        compiling="closed_form_compile_s",
    ),
    Comparison(
        "news",
        "news of one vintage against the one before",
        "{errors}, {revised} revised",
        "ours_ms",
        (
            Peer("statsmodels, `apply` and `news`", "vintage_ratio", "vintage_ms"),
            Peer("`news` alone", "news_ratio", "news_ms"),
        ),
        {"call": "consecutive_news", "kept": "cells"},
        "compile_s",
        note="statsmodels: the median of {peer_pairs} pairs.",
    ),
    Comparison(
        "tracker",
        "a tracker through 120 vintages, compilation included",
        "{errors}, {start} starts",
        "total_s",
        (Peer("nowcastbox, extrapolated", "ratio", "peer_s"),),
        note="Seconds on the clock, two cores; nowcastbox from {peer_vintages} vintages.",
    ),
    Comparison(
        "study_cell",
        "one path of a Monte Carlo cell, estimation alone",
        "{batch} side by side",
        "fits_ms",
        (
            Peer("statsmodels", "statsmodels_over_fits", "statsmodels_ms"),
            Peer("nowcastbox", "nowcastbox_over_fits", "nowcastbox_ms"),
        ),
        compiling="compile_s",
        note="{paths} paths of ours, {peer_paths} of the peers, for the same number of steps.",
    ),
    Comparison(
        "backtest_selection",
        "selection of sizes in one window of a backtest",
        "tolerance {rtol}",
        "jaxfc_ms",
        (Peer("statsmodels", "statsmodels_over_ours", "statsmodels_ms"),),
        compiling="compile_s",
    ),
    Comparison(
        "backtest",
        "one window of a backtest: selection, fit and 500 paths",
        "one core",
        "s_a_window",
        (
            Peer("statsmodels, fits alone", "fits_over_ours", "peer_fits_s"),
            Peer("fits and draws", "fits_and_draws_over_ours"),
        ),
        note="statsmodels in {peer_windows} windows, 10 of our 15 models: it has none with p = 0.",
    ),
    Comparison(
        "backtest_accelerator",
        "the same on an accelerator, 527 windows at once",
        "{device}",
        "s_a_window",
        (
            Peer("statsmodels on its host, fits alone", "fits_over_ours", "peer_fits_s"),
            Peer("fits and draws", "fits_and_draws_over_ours"),
        ),
        note="Seconds on the clock.",
    ),
)

STATES = (
    Comparison(
        "state_space",
        "`StateSpace.smooth`, complete data",
        "{size}, {implementation}, {noise}",
        "ours_ms",
        (Peer("dynamax", "dynamax_ratio", "dynamax_ms"),),
        compiling="compile_s",
    ),
    Comparison(
        "regimes",
        "one EM step of a hidden Markov model, 2 regimes, 2500 rows",
        "{series} series",
        "jaxfc_step_ms",
        (
            Peer("dynamax, its step compiled by us", "step_ratio", "dynamax_step_ms"),
            Peer("its `fit_em` as called", "fit_em_ratio", "dynamax_fit_em_step_ms"),
        ),
        compiling="jaxfc_compile_s",
        note="dynamax' `fit_em` compiles anew at every call.",
    ),
)
