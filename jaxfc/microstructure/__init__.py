"""Order books and trades: parsers, books rebuilt from messages, features, simulators, price impact
and execution."""

from jaxfc.microstructure.bilinear import BilinearNormalisation
from jaxfc.microstructure.binance import read_binance, read_binance_quotes
from jaxfc.microstructure.binance_writer import write_binance
from jaxfc.microstructure.book import Book, BookFault, BookStates, empty_book, reconstruct
from jaxfc.microstructure.calibrate_flow import LevelFlow, level_flow
from jaxfc.microstructure.calibrate_rates import (
    CalibratedFlow,
    CalibratedQueues,
    calibrate_flow,
    calibrate_queues,
)
from jaxfc.microstructure.clocks import accumulate, ewma_intensity, strikes
from jaxfc.microstructure.event_table import read_event_table, write_event_table
from jaxfc.microstructure.events import BookEvents, EventKind, EventLog
from jaxfc.microstructure.execution_feedback import OptimalFeedback, optimal_feedback
from jaxfc.microstructure.execution_market import (
    ExecutionMarket,
    ExecutionPath,
    ExecutionPolicy,
    ExecutionState,
)
from jaxfc.microstructure.execution_policy import FeedbackPolicy, SchedulePolicy
from jaxfc.microstructure.execution_schedules import (
    AlmgrenChriss,
    ResilientSchedule,
    liquidate_assets,
    obizhaeva_wang,
)
from jaxfc.microstructure.execution_training import (
    ExpectedShortfall,
    MeanAndRisk,
    Pathwise,
    PolicyGradient,
    TrainedPolicy,
    path_values,
    train_policy,
)
from jaxfc.microstructure.faults import Fault
from jaxfc.microstructure.features import (
    MARK_NAMES,
    event_marks,
    feature_table,
    order_flow_imbalance,
    queue_imbalance,
    realised_volatility,
    signed_flow,
    weighted_mid_from_mid,
)
from jaxfc.microstructure.hawkes_fit import FittedHawkes, HawkesErrors, fit_hawkes
from jaxfc.microstructure.hawkes_law import HawkesLaw, HawkesRows, hawkes_loglik, hawkes_rows
from jaxfc.microstructure.hawkes_simulate import HawkesPath, simulate_hawkes
from jaxfc.microstructure.impact_laws import EquityCosts, equity_costs, square_root_impact
from jaxfc.microstructure.impact_propagator import (
    Manipulation,
    cheapest_schedule,
    decay_allows,
    exponential_decay,
    power_decay,
    price_manipulation,
    propagated_prices,
    trading_cost,
)
from jaxfc.microstructure.lobster import (
    read_lobster,
    read_lobster_book,
    read_lobster_messages,
    write_lobster_book,
    write_lobster_messages,
)
from jaxfc.microstructure.micro_price import MicroPrice, fit_micro_price
from jaxfc.microstructure.queue_reactive import (
    QueueRates,
    QueueReactive,
    Queues,
    SimulatedQueues,
    draw_queues,
    estimate_queue_rates,
    simulate_queue_reactive,
)
from jaxfc.microstructure.replay import book_at, replay
from jaxfc.microstructure.simulate_rates import FlowEstimate, OrderFlow, estimate_flow
from jaxfc.microstructure.simulate_zero_intelligence import (
    QueueBook,
    SimulatedBook,
    exposures,
    queue_book,
    simulate_zero_intelligence,
)
from jaxfc.microstructure.synthetic import level_changes, synthetic_orders
from jaxfc.microstructure.up_moves import up_move_probabilities

__all__ = [
    "MARK_NAMES",
    "AlmgrenChriss",
    "BilinearNormalisation",
    "Book",
    "BookEvents",
    "BookFault",
    "BookStates",
    "CalibratedFlow",
    "CalibratedQueues",
    "EquityCosts",
    "EventKind",
    "EventLog",
    "ExecutionMarket",
    "ExecutionPath",
    "ExecutionPolicy",
    "ExecutionState",
    "ExpectedShortfall",
    "Fault",
    "FeedbackPolicy",
    "FittedHawkes",
    "FlowEstimate",
    "HawkesErrors",
    "HawkesLaw",
    "HawkesPath",
    "HawkesRows",
    "LevelFlow",
    "Manipulation",
    "MeanAndRisk",
    "MicroPrice",
    "OptimalFeedback",
    "OrderFlow",
    "Pathwise",
    "PolicyGradient",
    "QueueBook",
    "QueueRates",
    "QueueReactive",
    "Queues",
    "ResilientSchedule",
    "SchedulePolicy",
    "SimulatedBook",
    "SimulatedQueues",
    "TrainedPolicy",
    "accumulate",
    "book_at",
    "calibrate_flow",
    "calibrate_queues",
    "cheapest_schedule",
    "decay_allows",
    "draw_queues",
    "empty_book",
    "equity_costs",
    "estimate_flow",
    "estimate_queue_rates",
    "event_marks",
    "ewma_intensity",
    "exponential_decay",
    "exposures",
    "feature_table",
    "fit_hawkes",
    "fit_micro_price",
    "hawkes_loglik",
    "hawkes_rows",
    "level_changes",
    "level_flow",
    "liquidate_assets",
    "obizhaeva_wang",
    "optimal_feedback",
    "order_flow_imbalance",
    "path_values",
    "power_decay",
    "price_manipulation",
    "propagated_prices",
    "queue_book",
    "queue_imbalance",
    "read_binance",
    "read_binance_quotes",
    "read_event_table",
    "read_lobster",
    "read_lobster_book",
    "read_lobster_messages",
    "realised_volatility",
    "reconstruct",
    "replay",
    "signed_flow",
    "simulate_hawkes",
    "simulate_queue_reactive",
    "simulate_zero_intelligence",
    "square_root_impact",
    "strikes",
    "synthetic_orders",
    "trading_cost",
    "train_policy",
    "up_move_probabilities",
    "weighted_mid_from_mid",
    "write_binance",
    "write_event_table",
    "write_lobster_book",
    "write_lobster_messages",
]
