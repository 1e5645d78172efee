"Add colour to grey photographs with fastai and conditional GANs"
from importlib.metadata import version

__version__ = version('fastai_colorize')
