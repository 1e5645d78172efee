# Made from fastai_colorize/data/cache.py by `python .ci/stubs.py`: do not edit.
from typing import Any
import json, os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha1
from itertools import islice
from pathlib import Path
from shutil import disk_usage
import numpy as np, pandas as pd, torch
from fastai.data.core import TfmdDL
from fastai.torch_core import TensorImage
from fastcore.basics import chunked, patch, store_attr
from fastprogress.fastprogress import progress_bar
from fasttransform import Transform
from PIL import Image, ImageOps
from fastai_colorize.base.files import read_json, remove_leftovers, write_json, writing
from fastai_colorize.base.grey import GREY_CHROMA
from fastai_colorize.base.photos import open_photo
from fastai_colorize.base.usable import check_photos

__all__ = ['FITS', 'LoadPhoto', 'PhotoCache', 'photo_key', 'check_once', 'PhotoDL']

class LoadPhoto(Transform):
    size: int
    cache: Any
    fit: str
    def __init__(self, size: int, cache = None, fit: str = 'stretch') -> None: ...
    def encodes(self, o): ...
FITS: Any

class PhotoCache:
    size: int
    fit: str
    parts: Any
    keys: Any
    rows: Any
    def __init__(self, size: int, fit: str = 'stretch') -> None: ...
    def __contains__(self, o): ...
    def __len__(self): ...
    def __getitem__(self, files): ...
    @classmethod
    def build(cls, files: Iterable, size: int, folder: str | Path, workers: int | None = None, fit: str = 'stretch') -> PhotoCache: ...
def photo_key(file: str | Path) -> str: ...
def check_once(files: Iterable, folder: str | Path) -> pd.DataFrame: ...

class PhotoDL(TfmdDL):
    shares: Any
    def __init__(self, dataset = None, weights = None, **kwargs) -> None: ...
    def get_idxs(self): ...
    def create_batches(self, samps): ...
