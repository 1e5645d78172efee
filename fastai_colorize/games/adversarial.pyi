# Made from fastai_colorize/games/adversarial.py by `python .ci/stubs.py`: do not edit.
from typing import Any
import warnings
from copy import deepcopy
from functools import partial
from math import isfinite
import numpy as np, torch
from fastai.callback.core import Callback, CancelBatchException
from fastai.learner import ValueMetric
from fastai.torch_core import apply
from fastcore.basics import patch
from torch import nn
from torch.amp import GradScaler
from fastai_colorize.base.register import Entry
from fastai_colorize.games.game import games
from fastai_colorize.games.losses import check_weights, create_gan_loss, plot_terms
from fastai_colorize.nets.register import create_critic
from fastai_colorize.train.callbacks import orders
from fastai_colorize.train.schedule import gan_adam

__all__ = ['ConditionalGAN', 'gan_adam']

class ConditionalGAN(Callback):
    order: Any
    run_valid: bool
    monitor: Any
    critic: Any
    critic_opt: Any
    critic_scaler: Any
    before_find: Any
    set_aside: tuple[Any, ...]
    scale: dict
    terms: tuple[Any, ...]
    panels: tuple[Any, ...]
    batch_steps: int
    gan_loss: Any
    lambda_l1: float
    lr_mult: float
    critic_steps: int
    pretrain: int
    n_seen: Any
    epoch_start: Any
    history: Any
    columns: Any
    d_real: Any
    d_fake: Any
    generator_turn: Any
    d_loss: Any
    saturation: Any
    g_gan: Any
    g_l1: Any
    def __init__(self, critic: nn.Module, gan_loss: str = 'bce', lambda_l1: float = 100.0, lr_mult: float = 1.0, critic_steps: int = 1, pretrain: int = 0, smooth: float = 0.0, opt_func = ...) -> None: ...
    @property
    def rules(self) -> dict: ...
    def epoch_mean(self, term: str) -> float: ...
    @classmethod
    def create(cls, entry: Entry, critic: str = 'patch', augment: bool = False, **options) -> ConditionalGAN: ...
    @classmethod
    def fit_critic(cls, critic, options): ...
    def critic_loss(self, l: torch.Tensor, ab: torch.Tensor, fake: torch.Tensor) -> torch.Tensor: ...
    def generator_loss(self, l: torch.Tensor, pred: torch.Tensor) -> torch.Tensor: ...
    def after_critic_step(self): ...
    def before_batch(self): ...
    def after_pred(self): ...
    def after_loss(self): ...
    def before_backward(self): ...
    def before_fit(self): ...
    def before_train(self): ...
    def after_fit(self): ...
    def after_train(self): ...
    def state_dict(self) -> dict: ...
    def load_state_dict(self, state: dict): ...
    def plot_losses(self, smooth: int = 20, figsize: tuple | None = None): ...
