# Made from fastai_colorize/use/painter.py by `python .ci/stubs.py`: do not edit.
from typing import Any
import copy, math
from contextlib import contextmanager
from hashlib import sha1
import numpy as np, torch, torch.nn.functional as F
from PIL import Image
from fastcore.basics import patch
from torch import nn
from fastai_colorize.base.bicubic import bicubic_taps
from fastai_colorize.base.color import merge_lab, split_lab, to_uint8
from fastai_colorize.base.photos import Photo
from fastai_colorize.use.hints import HintedPhoto, Hints
from fastai_colorize.use.spread import guide, spread

__all__ = ['MOST_PLACES', 'resize_rows', 'hint_maps', 'hint_ab', 'put_hints', 'paint', 'best_device', 'TorchNetwork']
def resize_rows(x: torch.Tensor, H: int, start: int, stop: int) -> torch.Tensor: ...
MOST_PLACES: int
def hint_maps(photo: HintedPhoto, ab: torch.Tensor) -> torch.Tensor: ...
def hint_ab(rgb: np.ndarray) -> torch.Tensor: ...
def put_hints(hints: Hints, l: torch.Tensor, ab: torch.Tensor, maps: torch.Tensor, start: int) -> torch.Tensor: ...
def paint(photo: Photo, ab: torch.Tensor, saturation: float = 1) -> Image.Image: ...
def best_device() -> torch.device: ...

class TorchNetwork:
    device: Any
    dtype: Any
    model: Any
    idle: Any
    spare: Any
    thread_safe: Any
    def __init__(self, model: nn.Module, device: str | torch.device | None = None) -> None: ...
    def predict_ab(self, smalls: list) -> torch.Tensor: ...
    def paint(self, photo: Photo, ab: torch.Tensor, saturation: float) -> Image.Image: ...
    def digest(self) -> str: ...
    @contextmanager
    def lend(self): ...
