# Made from fastai_colorize/games/wgan.py by `python .ci/stubs.py`: do not edit.
from typing import Any
from functools import partial
import torch
import torch.nn.functional as F
from fastcore.basics import patch
from torch import nn
from fastai_colorize.games.adversarial import ConditionalGAN
from fastai_colorize.games.game import games
from fastai_colorize.games.losses import check_weights
from fastai_colorize.train.schedule import TorchOptimizer, gan_adam

__all__ = ['wgan_rmsprop', 'WGAN', 'WGANClip', 'gradient_penalty', 'add_dropout', 'WGANGP']
wgan_rmsprop: Any

class WGAN(ConditionalGAN):
    terms: tuple[Any, ...]
    panels: tuple[Any, ...]
    critic_steps: Any
    batch_steps: Any
    gap: Any
    def __init__(self, critic: nn.Module, critic_steps: int = 5, one_batch: bool = False, **kwargs) -> None: ...
    @property
    def rules(self) -> dict: ...
    def critic_loss(self, l, ab, fake): ...

class WGANClip(WGAN):
    clip: float
    grad_norm: Any
    def __init__(self, critic: nn.Module, clip: float = 0.01, opt_func = ..., **kwargs) -> None: ...
    @property
    def rules(self) -> dict: ...
    def critic_loss(self, l, ab, fake): ...
    def after_critic_step(self): ...
def gradient_penalty(critic: nn.Module, l: torch.Tensor, ab: torch.Tensor, fake: torch.Tensor) -> tuple: ...
def add_dropout(critic: nn.Module, ps: tuple = (0.2, 0.5, 0.5)) -> nn.Module: ...

class WGANGP(WGAN):
    terms: tuple[Any, ...]
    panels: tuple[Any, ...]
    lambda_gp: float
    lambda_ct: float
    grad_norm: Any
    gp: Any
    ct: Any
    def __init__(self, critic: nn.Module, lambda_gp: float = 10.0, lambda_ct: float = 0.0, **kwargs) -> None: ...
    @property
    def rules(self) -> dict: ...
    @classmethod
    def fit_critic(cls, critic, options): ...
    def critic_loss(self, l, ab, fake): ...
