"The address of `Colorizer` in the first release"
from .base.pictures import contact_sheet, sample_photos
from .use.colorizer import Colorizer, render_shape, resize_rows
from .use.folders import demo

__all__ = ['Colorizer', 'contact_sheet', 'demo', 'render_shape', 'resize_rows', 'sample_photos']
