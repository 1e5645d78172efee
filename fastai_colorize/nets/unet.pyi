# Made from fastai_colorize/nets/unet.py by `python .ci/stubs.py`: do not edit.
from typing import Any
import torch
import torch.nn.functional as F
from torch import nn
from fastcore.basics import patch
from fastcore.meta import delegates
from fastai_colorize.nets.register import generators

__all__ = ['UNet', 'init_normal', 'AttentionGate', 'AttentionUNet']

class UNet(nn.Module):
    size: int
    n_in: int
    nfs: Any
    downs: Any
    ups: Any
    def __init__(self, size: int = 256, n_in: int = 1, n_out: int = 2, ngf: int = 64, norm: str = 'batch') -> None: ...
    def forward(self, x): ...
    def skip(self, i: int, s: torch.Tensor, x: torch.Tensor) -> torch.Tensor: ...
def init_normal(model: nn.Module, std: float = 0.02) -> nn.Module: ...

class AttentionGate(nn.Module):
    skip: Any
    gate: Any
    psi: Any
    def __init__(self, ns: int, nx: int) -> None: ...
    def forward(self, s, x): ...

class AttentionUNet(UNet):
    gates: Any
    def __init__(self, size = 256, **kwargs) -> None: ...
    def skip(self, i, s, x): ...
    def attention_maps(self, l: torch.Tensor) -> list: ...
    def show_attention(self, l: torch.Tensor, figsize: tuple | None = None): ...
