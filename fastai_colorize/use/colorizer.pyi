# Made from fastai_colorize/use/colorizer.py by `python .ci/stubs.py`: do not edit.
from typing import Any
import copy, math, os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, ClassVar
from PIL import Image
from fastcore.basics import patch
from fastai_colorize.base.photos import PhotoError, PhotoLike
from fastai_colorize.use.budget import batches_by_pixels, is_out_of_memory, pixel_budget
from fastai_colorize.use.hints import HintsLike, open_hinted
from fastai_colorize.use.runtime import PortableNetwork, is_portable, open_network
import torch
import os, sys
from collections.abc import Iterable
from functools import partial
from hashlib import sha1
from typing import TYPE_CHECKING
from fastcore.basics import listify, patch
from fastai_colorize.base.exif import fits_exif, note_software
from fastai_colorize.base.files import error_line, remove_leftovers, versions, write_bytes
from fastai_colorize.base.folders import describe_skipped
from fastai_colorize.base.output import progress
from fastai_colorize.base.photos import SAVES, PhotoError, photo_note, save_photo
from fastai_colorize.use.hints import find_hints
from fastai_colorize.use.plan import file_identity, plan_results
import pandas as pd
from fastai_colorize.base.photos import PhotoLike
from fastai_colorize.base.pictures import sheet
from fastai_colorize.use.hints import HintsLike
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fastai_colorize.base.files import check_outside, error_line
from fastai_colorize.use.video import FilmReport

__all__ = ['Colorizer', 'render_shape']

class Colorizer:
    model: Any
    device: 'str|torch.device|None'
    render_size: int | None
    multiple: Any
    lock: Any
    network: Any
    def __init__(self, model: Any, render_size: int | None = None, device: 'str|torch.device|None' = None) -> None: ...
    @classmethod
    def from_pretrained(cls, weights: str | os.PathLike = 'l1', render_size: int | None = None, device: 'str|torch.device|None' = None) -> Colorizer: ...
    @classmethod
    def from_learner(cls, learn, render_size: int | None = None) -> Colorizer: ...
    def prepare(self, photo, render_size): ...
    def predict_ab(self, smalls): ...
    def paint(self, photo, ab, saturation): ...
    def colorize(self, photo: PhotoLike, saturation: float = 1.0, render_size: int | None = None, hints: HintsLike | None = None) -> Image.Image: ...
    def stream(self, photos, bs = 8, saturation = 1.0, render_size = None, workers = None): ...
    def finish(self, photos, futures, saturation, render_size): ...
    def alone(self, source, saturation, render_size): ...
    def colours_of(self, smalls): ...
    def colorize_batch(self, photos: Iterable, bs: int = 8, saturation: float = 1.0, render_size: int | None = None, workers: int | None = None) -> Iterator: ...
    def colorize_files(self, paths: str | os.PathLike | Iterable[str | os.PathLike], out: str | os.PathLike, overwrite: bool = False, saturation: float = 1.0, render_size: int | None = None, bs: int = 4, exclude: str | Iterable[str] = (), hints: str | os.PathLike | None = None, format: str | None = None, quality: int = 95, suffix: str = '') -> 'pd.DataFrame': ...
    def variants(self, photo: PhotoLike, hints: HintsLike | None = None) -> dict[str, Image.Image]: ...
    def colorize_as(self, photo: PhotoLike, variant: str = 'normal', saturation: float = 1.0, render_size: int | None = None, hints: HintsLike | None = None) -> Image.Image: ...
    def colorize_video(self, path: str | os.PathLike, out: str | os.PathLike, overwrite: bool = False, saturation: float = 1.0, render_size: int | None = None, steady: bool = True, hints: Mapping | str | os.PathLike | None = None, codec: str = 'h264', preview: float | None = None, side_by_side: bool = False) -> FilmReport: ...
def check_settings(saturation, render_size): ...
def render_shape(h: int, w: int, size: int, multiple: int = 32) -> tuple[int, int]: ...
