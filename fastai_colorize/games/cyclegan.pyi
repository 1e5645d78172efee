# Made from fastai_colorize/games/cyclegan.py by `python .ci/stubs.py`: do not edit.
from typing import Any
from copy import deepcopy
import numpy as np, torch
import torch.nn.functional as F
from fastcore.basics import patch
from torch import nn
from fastai_colorize.base.color import merge_lab
from fastai_colorize.base.pictures import sheet
from fastai_colorize.base.register import Entry
from fastai_colorize.games.adversarial import ConditionalGAN
from fastai_colorize.games.game import games
from fastai_colorize.games.losses import check_weights
from fastai_colorize.games.memory import PhotoPool, noise_state, replay
from fastai_colorize.nets.register import create_critic, create_generator, generators
from fastai_colorize.train.callbacks import ask
from fastai_colorize.train.schedule import gan_adam

__all__ = ['TwoCritics', 'CycleGAN']

class TwoCritics(nn.Module):
    color: nn.Module
    grey: nn.Module
    def __init__(self, color: nn.Module, grey: nn.Module) -> None: ...
    def forward(self, l, ab): ...

class CycleGAN(ConditionalGAN):
    grey: Any
    grey_opt: Any
    pools: tuple[Any, ...]
    preview_name: str
    terms: tuple[Any, ...]
    panels: tuple[Any, ...]
    weights: Any
    lab: Any
    set_aside: Any
    noise: Any
    grey_noise: Any
    fake_l: Any
    d_real: Any
    d_fake: Any
    d_grey_real: Any
    d_grey_fake: Any
    fake: Any
    g_total: Any
    def __init__(self, grey: nn.Module, critic: nn.Module, grey_critic: nn.Module, gan_loss: str = 'lsgan', lambda_cycle: float = 10.0, lambda_detail: float = 10.0, lambda_identity: float = 0.0, pool_size: int = 50, lr_mult: float = 1.0, opt_func = ..., smooth: float = 0.0) -> None: ...
    @property
    def rules(self) -> dict: ...
    @classmethod
    def create(cls, entry: Entry, grey = None, generator: str = 'resnet9', size: int = 256, **options) -> CycleGAN: ...
    def before_fit(self): ...
    def before_train(self): ...
    def before_batch(self): ...
    def after_pred(self): ...
    def critic_loss(self, l, ab, fake): ...
    def generator_terms(self, l: torch.Tensor, lab: torch.Tensor, fake: torch.Tensor, fake_l: torch.Tensor) -> list: ...
    def generator_loss(self, l, pred): ...
    def after_loss(self): ...
    def before_step(self): ...
    def preview(self, l: torch.Tensor, ab: torch.Tensor) -> np.ndarray: ...
    def state_dict(self) -> dict: ...
    def load_state_dict(self, state: dict): ...
