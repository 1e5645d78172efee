"The address of `Colorizer` in the first release; each name is imported from its module when it is asked for"
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .base.pictures import contact_sheet, sample_photos
    from .use.colorizer import Colorizer, render_shape
    from .use.folders import demo
    from .use.painter import resize_rows

__all__ = ['Colorizer', 'contact_sheet', 'demo', 'render_shape', 'resize_rows', 'sample_photos']
_HOMES = dict(contact_sheet='base.pictures', sample_photos='base.pictures', demo='use.folders', Colorizer='use.folders',
              resize_rows='use.painter')

def __getattr__(name: str):
    if name not in __all__: raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__package__}.{_HOMES.get(name, 'use.colorizer')}"), name)
