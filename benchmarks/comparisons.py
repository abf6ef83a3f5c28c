"""All comparisons with peers, by the topics of the page."""

from comparisons_factors import FACTORS, STATES
from comparisons_returns import BAYES, HIERARCHIES, NETWORKS, PORTFOLIOS, VOLATILITY

TOPICS = {
    "Factor models": FACTORS,
    "State spaces and regimes": STATES,
    "Volatility": VOLATILITY,
    "Hierarchies": HIERARCHIES,
    "Portfolios": PORTFOLIOS,
    "Bayesian models": BAYES,
    "Networks": NETWORKS,
}
