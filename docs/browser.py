"""What the page *Colour a photo here* needs beside it, in the folder `colour` of the site.

`colour.js` comes from the notebook that explains it, the networks from the packaged weights, and ONNX Runtime Web from
npm. What takes long is kept in the user's cache. Without npm or a connection the site is built all the same, and the
page says what it lacks."""
import json, os, re, shutil, subprocess, sys, tarfile, tempfile
from hashlib import sha1
from pathlib import Path

root = Path(__file__).resolve().parent.parent
RUNTIME = 'onnxruntime-web@1.30.0'
PROGRAMS = dict(wasm=dict(script='ort.wasm.bundle.min.mjs', wasm='ort-wasm-simd-threaded.wasm', providers=['wasm']),
                webgpu=dict(script='ort.webgpu.bundle.min.mjs', wasm='ort-wasm-simd-threaded.asyncify.wasm',
                            providers=['webgpu', 'wasm']))
LABELS = dict(l1='careful')   # of packaged weights, for people; others have their name

EXPORT = """import sys, torch
from pathlib import Path
from fastai_colorize.base.files import write_bytes
from fastai_colorize.nets.weights import load_generator
from fastai_colorize.use.export import network_facts, onnx_bytes, pack_weights
import json
net = load_generator(sys.argv[1])
write_bytes(sys.argv[2], pack_weights(onnx_bytes(net, json.dumps(network_facts(net, Path(sys.argv[1]).stem)))))"""

def cache():
    res = Path(os.environ.get('XDG_CACHE_HOME') or Path.home()/'.cache')/'fastai_colorize'
    res.mkdir(parents=True, exist_ok=True)
    return res

def script():
    "The JavaScript of the notebook"
    nb = json.loads((root/'nbs'/'explanations'/'in_the_browser.ipynb').read_text(encoding='utf-8'))
    cells = [''.join(c['source']) for c in nb['cells'] if c['cell_type'] == 'markdown']
    blocks = [o for c in cells for o in re.findall(r'^```js\n(.*?)^```', c, flags=re.S|re.M)]
    return '// Made from nbs/explanations/in_the_browser.ipynb: edit there.\n\n' + '\n'.join(blocks)

def runtime():
    "The folder of ONNX Runtime Web, by npm; None where it cannot be had"
    there = cache()/RUNTIME.replace('@', '-')
    if there.is_dir(): return there
    if not (npm := shutil.which('npm')): return None
    with tempfile.TemporaryDirectory(dir=cache()) as tmp:
        res = subprocess.run([npm, 'pack', RUNTIME, '--silent'], cwd=tmp, capture_output=True, text=True)
        if res.returncode: return None
        with tarfile.open(next(Path(tmp).glob('*.tgz'))) as tar:
            names = {o[k] for o in PROGRAMS.values() for k in ('script', 'wasm')}
            for o in tar.getmembers():
                if o.isfile() and Path(o.name).name in names: (Path(tmp)/Path(o.name).name).write_bytes(tar.extractfile(o).read())
        shutil.copy(root/'docs'/'LICENSE-onnxruntime.txt', tmp)
        next(Path(tmp).glob('*.tgz')).unlink()
        shutil.copytree(tmp, there, dirs_exist_ok=True)
    return there

def network(weights):
    "The ONNX file of packaged weights; made by a process of its own, whose memory is free afterwards"
    source = b''.join((root/'fastai_colorize'/f).read_bytes() for f in ('use/export.py', f'weights/{weights}.safetensors'))
    there = cache()/f'{weights}-{sha1(source).hexdigest()[:12]}.onnx'
    if not there.exists():
        file = root/'fastai_colorize'/'weights'/f'{weights}.safetensors'
        subprocess.run([sys.executable, '-W', 'ignore', '-c', EXPORT, file, there], check=True, cwd=root)
    return there

def assemble(out):
    "Write the folder `colour` of the site"
    out = Path(out)/'colour'
    out.mkdir(parents=True, exist_ok=True)
    (out/'colour.js').write_text(script(), encoding='utf-8')
    try: import onnx
    except ImportError: return
    if not (programs := runtime()): return
    for f in programs.iterdir(): shutil.copy(f, out/f.name)
    about = dict(programs={k: dict(o, bytes=(out/o['wasm']).stat().st_size) for k,o in PROGRAMS.items()}, networks=[])
    for weights in sorted(o.stem for o in (root/'fastai_colorize'/'weights').glob('*.safetensors')):
        f = network(weights)
        shutil.copy(f, out/f.name)
        said = {o.key: o.value for o in onnx.load(f).metadata_props}['fastai_colorize']
        sizes = {k: json.loads(said)[k] for k in ('render_size', 'multiple')}
        label = LABELS.get(weights, weights)
        about['networks'].append(dict(name=weights, label=label, file=f.name, bytes=f.stat().st_size, **sizes))
    (out/'about.json').write_text(json.dumps(about, indent=1), encoding='utf-8')

if __name__ == '__main__': assemble(sys.argv[1])
