# Made from fastai_colorize/train/runs.py by `python .ci/stubs.py`: do not edit.
from typing import Any
import random
from contextlib import contextmanager
from hashlib import sha1
from pathlib import Path
import numpy as np, pandas as pd, torch
from fastai.callback.core import Callback
from fastai.learner import CancelEpochException
from fastcore.basics import patch
from fastcore.foundation import L
from fastai_colorize.base.files import remove_leftovers, versions, write_json, writing
from fastai_colorize.base.locks import lock_folder, unlock_folder
from fastai_colorize.nets.weights import save_generator
from fastai_colorize.train.contents import compare_photos, photo_table, write_table
from fastai_colorize.train.callbacks import is_training, orders

__all__ = ['TrainingRun']

class TrainingRun(Callback):
    order: Any
    out: Any
    resume: bool
    monitor: str
    active: Any
    start: Any
    made: Any
    history: Any
    best: Any
    rng: Any
    iters: Any
    lrs: Any
    def __init__(self, out, resume: bool = False, monitor: str = 'valid_loss') -> None: ...
    def before_fit(self): ...
    def before_epoch(self): ...
    def after_fit(self): ...
    def after_epoch(self): ...
