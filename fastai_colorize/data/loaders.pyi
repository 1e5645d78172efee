# Made from fastai_colorize/data/loaders.py by `python .ci/stubs.py`: do not edit.
from typing import Any
import os
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
import numpy as np, pandas as pd, torch
from fastai.data.core import DataLoaders, Datasets
from fastai.data.transforms import IntToFloatTensor, RandomSplitter
from fastai.torch_core import default_device
from fastcore.basics import listify, patch
from fastcore.foundation import L
from fastcore.meta import delegates
from PIL import Image
from fastai_colorize.base.photos import find_photos
from fastai_colorize.base.usable import describe_left_out
from fastai_colorize.data.batches import CropBatch, FlipBatch, RGBToLab
from fastai_colorize.data.cache import LoadPhoto, PhotoCache, PhotoDL, check_once
from fastai_colorize.data.degrade import Degrade
from fastai_colorize.data.unpaired import UnpairedDL, UnpairedToLab, grey_photos

__all__ = ['ColorDataLoaders', 'LoadPhoto', 'PhotoCache', 'PhotoDL']

class ColorDataLoaders(DataLoaders):
    @classmethod
    def from_files(cls, files: Iterable, valid_pct: float = 0.2, seed: int = 42, splits: Sequence | None = None, valid_from: Iterable | None = None, size: int = 256, bs: int = 16, min_scale: float = 1.0, fit: str = 'stretch', weights: dict | None = None, degrade: bool | float | Degrade = False, cache: str | Path | None = None, check: bool = True, unpaired: bool | str | Path | Iterable = False, batch_tfms = None, num_workers: int | None = None, device = None, path: str | Path = '.') -> ColorDataLoaders: ...
    @classmethod
    def from_folder(cls, path: str | Path, train: str | None = None, valid: str | None = None, **kwargs) -> ColorDataLoaders: ...
    @classmethod
    def from_folders(cls, folders: Iterable, weights: Iterable | None = None, valid: str | Path | Iterable | None = None, exclude: str | Iterable[str] | None = None, **kwargs) -> ColorDataLoaders: ...
    @classmethod
    def from_df(cls, df: pd.DataFrame, path: str | Path = '.', fn_col = 0, valid_col = None, **kwargs) -> ColorDataLoaders: ...
    @classmethod
    def from_coco(cls, annotations: str | Path, dest: str | Path, n: int | None = None, seed: int = 42, categories = None, min_size: int = 0, **kwargs) -> ColorDataLoaders: ...
