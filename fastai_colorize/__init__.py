"Add colour to grey photographs with fastai and conditional GANs"
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastai_colorize.use.colorizer import Colorizer
    __version__: str

__all__ = ['Colorizer', '__version__']

def __getattr__(name: str):
    "Nothing is imported before it is asked for: torch takes a second, and `--help` needs none of it"
    if name == '__version__':
        from importlib.metadata import version
        return version('fastai_colorize')
    if name == 'Colorizer':
        import fastai_colorize.use.folders                 # adds `colorize_files`
        import fastai_colorize.use.video                   # adds `colorize_video`
        from fastai_colorize.use.colorizer import Colorizer
        return Colorizer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

def __dir__() -> list[str]: return sorted([*globals(), *__all__])
