"Packaging from `settings.ini`, the one place for version, dependencies, extras and commands."
from configparser import ConfigParser
from pathlib import Path
from setuptools import find_packages, setup

parser = ConfigParser(delimiters='=')
parser.read(Path(__file__).with_name('settings.ini'), encoding='utf-8')
cfg = parser['DEFAULT']
extras = {k.removesuffix('_requirements'): v.split() for k,v in cfg.items() if k.endswith('_requirements')}
weights = [f'weights/*.{o}' for o in ('safetensors', 'md', 'csv')]

setup(
    version=cfg['version'], description=cfg['description'], keywords=cfg['keywords'].split(), license=cfg['license'],
    long_description=Path(__file__).with_name('README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    python_requires=f">={cfg['min_python']}", install_requires=cfg['requirements'].split(), extras_require=extras,
    packages=find_packages(include=['fastai_colorize*']),
    package_data={'fastai_colorize': ['py.typed', '*.pyi', '*/*.pyi', *weights, 'results/*.*', 'results/*/*.*', 'page/*']},
    entry_points={'console_scripts': cfg['console_scripts'].split('\n'), 'nbdev': ['fastai_colorize=fastai_colorize._modidx:d']},
    classifiers=['Programming Language :: Python :: 3', 'Framework :: Jupyter', 'Topic :: Scientific/Engineering :: Image Processing',
                 'Typing :: Typed'],
)
