"""Small networks that forecast: the tiny recursive network among its rivals, on any anchor."""

from jaxfc.recursive.baselines import (
    Architecture,
    ConstantNet,
    DecayingNet,
    GatedNet,
    LinearNet,
    MixerNet,
    MultilayerNet,
    PatchAttentionNet,
    RecursiveNet,
    WeightedVarianceNet,
)
from jaxfc.recursive.checkpoint import train_with_checkpoints
from jaxfc.recursive.draw_heads import CategoricalHead, QuantileHead
from jaxfc.recursive.fitted import FittedNetwork
from jaxfc.recursive.heads import GaussianHead, Head, LowRankHead, MixtureHead, StudentHead
from jaxfc.recursive.laws import MixtureForecast
from jaxfc.recursive.model import NetworkModel
from jaxfc.recursive.network import TinyRecursiveNet, num_parameters
from jaxfc.recursive.schedules import Curriculum, Ramp
from jaxfc.recursive.training import Training

__all__ = [
    "Architecture",
    "CategoricalHead",
    "ConstantNet",
    "Curriculum",
    "DecayingNet",
    "FittedNetwork",
    "GatedNet",
    "GaussianHead",
    "Head",
    "LinearNet",
    "LowRankHead",
    "MixerNet",
    "MixtureForecast",
    "MixtureHead",
    "MultilayerNet",
    "NetworkModel",
    "PatchAttentionNet",
    "QuantileHead",
    "Ramp",
    "RecursiveNet",
    "StudentHead",
    "TinyRecursiveNet",
    "Training",
    "WeightedVarianceNet",
    "num_parameters",
    "train_with_checkpoints",
]
