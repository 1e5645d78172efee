// The page: it shows small previews, and sends the photo itself only when it is added and when it is downloaded.
// All work on pixels is done by `use.service`; here are files, strokes, and what the buttons do.
const SIDE = 1024;                     // pixels of a preview
const $ = id => document.getElementById(id);
const photos = [];                     // each as `open` makes it
let now = null, facts = {}, samples = [], colour = null;

// ---- the server

async function ask(route, fields) {
  const form = new FormData();
  for (const [k, v] of Object.entries(fields)) if (v !== '' && v != null) form.append(k, ...[v].flat());
  let res;
  try { res = await fetch(route, {method: 'POST', body: form}); }
  catch { throw Error('The page does not answer. Is it still running?'); }
  if (!res.ok) throw Error((await res.json().catch(() => ({}))).detail || `The page answers with ${res.status}.`);
  return res;
}
const note = res => decodeURIComponent(res.headers.get('x-note') || '');
const scanOf = p => ({crop: p.crop.join(), angle: p.angle, contrast: p.contrast, denoise: p.denoise});
const isPlain = p => !p.angle && !p.contrast && !p.denoise && p.crop.every(o => o === 0);
const paintOf = p => ({saturation: p.saturation, variant: p.variant, hints: p.strokes.length ? JSON.stringify(hints(p)) : '',
                       render_size: Math.min(1024, Math.max(32, Math.round(facts.render_size*p.look)))});

// ---- photos

async function open(file) {
  const res = await ask('prepare', {photo: [file, file.name || 'photo.png'], side: SIDE}), small = await res.blob();
  const image = await createImageBitmap(small), size = res.headers.get('x-size').split('x').map(Number);
  return {file, name: file.name || 'photo.png', small, image, url: URL.createObjectURL(small), size, note: note(res),
          strokes: [], past: [], saturation: 1, look: 1, variant: 'normal', crop: [0, 0, 0, 0], angle: 0, contrast: false,
          denoise: false, scan: null, variants: {}};
}

async function add(files) {
  problem();
  for (const file of files) {
    $('status').textContent = `Opening ${file.name || 'photo'} …`;
    try {
      photos.push(await open(file));
      $('work').hidden = false;
      select(photos.at(-1));
    } catch (e) { problem(e.message); }
  }
  if (!now) $('status').textContent = '';
}

function problem(text) {
  if (!text) $('problems').replaceChildren();
  else $('problems').append(Object.assign(document.createElement('li'), {textContent: text}));
  $('problems').hidden = !text;
}

function button(text, src, pressed, click) {
  const b = Object.assign(document.createElement('button'), {type: 'button', className: src ? 'thumb' : '', onclick: click});
  if (src) b.append(Object.assign(new Image(), {src, alt: ''}), text);
  b.setAttribute('aria-pressed', pressed);
  return b;
}

function strip() {
  $('strip').hidden = $('zip').hidden = photos.length < 2;
  $('samples').hidden = !samples.length || photos.length > 0;
  $('strip').replaceChildren(...photos.map(p => button(p.name, p.url, p === now, () => select(p))));
  $('zip').textContent = `Download all ${photos.length} as a ZIP`;
}

function select(p) {
  now = p;
  $('work').hidden = !p;
  strip();
  if (!p) return;
  $('caption').textContent = [p.name, `${p.size[0]} × ${p.size[1]} pixels`, p.note].filter(Boolean).join(', ');
  for (const id of ['saturation', 'angle']) $(id).value = p[id];
  for (const id of ['contrast', 'denoise']) $(id).checked = p[id];
  $('look').value = p.look;
  document.querySelectorAll('.crop').forEach((o, i) => o.value = p.crop[i]);
  $('part').hidden = $('variants').hidden = true;
  $('swatches').replaceChildren();
  for (const [id, what] of [['before', 'in grey'], ['after', 'in colour']]) $(id).ariaLabel = `${p.name} ${what}`;
  says();
  refresh();
}

function says() {
  $('saturation-says').textContent = Number($('saturation').value);
  $('angle-says').textContent = `${$('angle').value}°`;
}

// ---- previews: one at a time, and the newest wishes

let busy = false, again = false;
async function refresh() {
  again = true;
  if (busy) return;
  busy = true;
  while (again && now) {
    again = false;
    const p = now;
    try { await preview(p); }
    catch (e) { problem(e.message); $('status').textContent = ''; }
  }
  busy = false;
}

async function preview(p) {
  const scan = JSON.stringify(scanOf(p));
  $('status').textContent = 'Colouring …';
  if (scan !== p.scan) {
    p.ready = isPlain(p) ? p.small : await (await ask('prepare', {photo: [p.small, p.name], side: SIDE, ...scanOf(p)})).blob();
    p.grey = await createImageBitmap(p.ready);
    p.scan = scan;
    p.variants = {};
    p.plain = null;
    if (p === now) draw(p, p.grey);          // what is done to a scan is seen before its colour
  }
  const wishes = paintOf(p);
  p.colour = await createImageBitmap(await (await ask('colorize', {photo: [p.ready, p.name], side: SIDE, ...wishes})).blob());
  if (!p.plain || !wishes.hints) p.plain = p.colour;
  if (p !== now || again) return;
  draw(p, p.colour);
  $('status').textContent = 'This is a preview; the download has the size of your photo.';
}

function draw(p, colour) {
  for (const [id, image] of [['before', p.grey], ['after', colour], ['strokes', null]]) {
    const c = $(id);
    [c.width, c.height] = [p.grey.width, p.grey.height];
    if (image) c.getContext('2d').drawImage(image, 0, 0);
  }
  compare();
  drawStrokes();
}

function compare() {
  const painting = tool() !== 'compare', v = painting ? 0 : $('compare').value;
  $('before').style.clipPath = `inset(0 ${100 - v}% 0 0)`;
  $('compare').disabled = painting;
}

// ---- strokes: in parts of the photo before it is cropped and turned, so that they stay where they are

function frame(p) {
  const [w, h] = [p.image.width, p.image.height], a = p.angle*Math.PI/180, s = Math.abs(a);
  const part = 1/(Math.cos(s) + Math.max(w/h, h/w)*Math.sin(s)), x = Math.ceil(w*(1 - part)/2), y = Math.ceil(h*(1 - part)/2);
  const iw = w - 2*x, ih = h - 2*y, [l, t, r, b] = p.crop;
  return {w, h, a, x: x + l*iw, y: y + t*ih, fw: iw*(1 - l - r), fh: ih*(1 - t - b)};
}
function toPicture(p, [u, v]) {
  const f = frame(p), dx = (u - .5)*f.w, dy = (v - .5)*f.h;
  const x = f.w/2 + Math.cos(f.a)*dx - Math.sin(f.a)*dy, y = f.h/2 + Math.sin(f.a)*dx + Math.cos(f.a)*dy;
  return [(x - f.x)/f.fw*p.grey.width, (y - f.y)/f.fh*p.grey.height];
}
function toPhoto(p, [x, y]) {
  const f = frame(p), dx = f.x + x/p.grey.width*f.fw - f.w/2, dy = f.y + y/p.grey.height*f.fh - f.h/2;
  return [.5 + (Math.cos(f.a)*dx + Math.sin(f.a)*dy)/f.w, .5 + (Math.cos(f.a)*dy - Math.sin(f.a)*dx)/f.h];
}
const unit = p => Math.sqrt(p.image.width*p.image.height);

function hints(p) {
  const [w, h] = [p.grey.width, p.grey.height], rows = [];
  for (const s of p.strokes) for (const o of s.points) {
    const [x, y] = toPicture(p, o).map(Math.floor);
    if (x >= 0 && x < w && y >= 0 && y < h) rows.push([x, y, s.colour, Math.round(s.width*unit(p))]);
  }
  return {size: [w, h], hints: rows};
}

function drawStrokes() {
  const p = now, c = $('strokes').getContext('2d');
  c.clearRect(0, 0, c.canvas.width, c.canvas.height);
  for (const id of ['undo', 'clear', 'save']) $(id).disabled = id === 'undo' ? !p.past.length : !p.strokes.length;
  if (tool() === 'compare') return;
  for (const s of [...p.strokes, ...(live ? [live] : [])]) for (const o of s.points) {
    const [x, y] = toPicture(p, o);
    c.beginPath();
    c.arc(x, y, Math.max(3, s.width*unit(p)), 0, 7);
    c.fillStyle = s.colour || '#888888';
    c.fill();
  }
}

function change(p, strokes) {
  p.past.push(p.strokes);
  p.strokes = strokes;
  drawStrokes();
  refresh();
}

const tool = () => document.querySelector('[name=tool]:checked').value;
const width = () => $('width').value*.004;
let live = null, spot = null;

function place(e) {
  const box = $('strokes').getBoundingClientRect();
  return [(e.clientX - box.x)/box.width*$('strokes').width, (e.clientY - box.y)/box.height*$('strokes').height];
}
function extend(at) {
  const o = toPhoto(now, at), last = live.points.at(-1);
  const far = last && Math.hypot(...[0, 1].map(i => toPicture(now, last)[i] - at[i]));
  if (!last || far > Math.max(2, width()*unit(now))) live.points.push(o);
}
function erase(at) {
  const r = 2*width()*unit(now) + 6;
  const left = now.strokes.filter(s => s.points.every(o => Math.hypot(...toPicture(now, o).map((v, i) => v - at[i])) > r));
  if (left.length < now.strokes.length) change(now, left);
}
async function dab(stroke) {
  const p = now, all = await palette(p, stroke.points[0]);
  stroke.colour = colour || all[1] || all[0] || $('colour').value;
  change(p, [...p.strokes, stroke]);
}

async function palette(p, point) {
  const [x, y] = toPicture(p, point).map(Math.floor), c = new OffscreenCanvas(p.plain.width, p.plain.height).getContext('2d');
  c.drawImage(p.plain, 0, 0);
  const data = c.getImageData(x - 2, y - 2, 5, 5).data, mean = [0, 1, 2].map(k => {
    const seen = [...Array(25).keys()].filter(i => data[4*i + 3]);
    return Math.round(seen.reduce((s, i) => s + data[4*i + k], 0)/Math.max(1, seen.length));
  });
  const hex = mean.map(o => o.toString(16).padStart(2, '0')).join('');
  const all = await fetch(`palette?colour=${hex}`).then(r => r.ok ? r.json() : [`#${hex}`]);
  $('swatches').replaceChildren(...all.map((o, i) => {
    const b = button('', null, false, () => choose(o));
    b.style.background = o;
    b.title = b.ariaLabel = i ? `Likely colour ${i}, ${o}` : `As the network has it, ${o}`;
    return b;
  }));
  return all;
}

function choose(c) {
  colour = $('colour').value = c;
  const p = now, last = p.strokes.at(-1);
  if (last) change(p, [...p.strokes.slice(0, -1), {...last, colour: c}]);
}

const stage = $('strokes');
let held = false;
stage.onpointerdown = e => {
  if (!now?.colour) return;
  held = true;
  stage.setPointerCapture(e.pointerId);
  if (tool() === 'brush') live = {points: [], width: width(), colour};
  stage.onpointermove(e);
};
stage.onpointermove = e => {
  if (!held) return;
  const at = place(e);
  if (tool() === 'eraser') erase(at);
  else if (live) { extend(at); drawStrokes(); }
  else { $('compare').value = 100*at[0]/stage.width; compare(); }
};
stage.onpointerup = stage.onpointercancel = e => {
  held = false;
  const stroke = live;
  live = null;
  if (stroke?.points.length) dab(stroke);
};
stage.onkeydown = e => {
  const steps = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]}, p = now;
  if (!p?.colour || tool() === 'compare') return;
  spot ??= [stage.width/2, stage.height/2];
  if (e.key in steps) {
    const size = [stage.width, stage.height];
    spot = spot.map((v, i) => Math.min(size[i] - 1, Math.max(0, v + steps[e.key][i]*size[i]*(e.shiftKey ? .1 : .02))));
  } else if (e.key === 'Enter' || e.key === ' ') {
    if (tool() === 'eraser') erase(spot);
    else dab({points: [toPhoto(p, spot)], width: width(), colour});
  } else return;
  e.preventDefault();
  cross();
};
function cross() {
  const on = tool() !== 'compare' && spot && document.activeElement === stage, box = stage.getBoundingClientRect(), home = $('stage').getBoundingClientRect();
  $('cross').hidden = !on;
  if (on) [$('cross').style.left, $('cross').style.top] = [`${box.x - home.x + spot[0]/stage.width*box.width}px`, `${box.y - home.y + spot[1]/stage.height*box.height}px`];
}
stage.onfocus = () => { if (now && tool() !== 'compare') { spot ??= [stage.width/2, stage.height/2]; cross(); } };
stage.onblur = cross;

document.querySelectorAll('[name=tool]').forEach(o => o.onchange = () => {
  const draws = tool() !== 'compare';
  $('brush').hidden = !draws;
  $('stage').classList.toggle('draws', draws);
  stage.tabIndex = draws ? 0 : -1;
  stage.setAttribute('role', draws ? 'application' : 'img');
  stage.ariaLabel = draws ? 'The photo: arrow keys move the brush, Enter uses it' : 'Your strokes';
  compare();
  drawStrokes();
});
$('undo').onclick = () => { if (now?.past.length) { now.strokes = now.past.pop(); drawStrokes(); refresh(); } };
$('clear').onclick = () => change(now, []);
$('colour').onchange = e => choose(e.target.value);
document.addEventListener('keydown', e => {
  if ((e.ctrlKey || e.metaKey) && e.key === 'z' && !/^(text|search|number)$/.test(e.target.type || '')) { e.preventDefault(); $('undo').click(); }
});

$('save').onclick = () => {
  const p = now, [w, h] = p.size, clip = (v, n) => Math.min(n - 1, Math.max(0, Math.floor(v*n)));
  const rows = p.strokes.flatMap(s => s.points.map(([u, v]) => [clip(u, w), clip(v, h), s.colour, Math.min(1000, Math.round(s.width*Math.sqrt(w*h)))]));
  keep(new Blob([JSON.stringify({size: p.size, hints: rows})], {type: 'application/json'}), `${p.name}.hints.json`);
};
$('load').onchange = async e => {
  const file = e.target.files[0], p = now;
  e.target.value = '';
  problem();
  try {
    const all = JSON.parse(await file.text()), rows = all.hints || all, [w, h] = all.size || p.size;
    if (!Array.isArray(rows) || !rows.every(o => Array.isArray(o) && [o[0], o[1], o[3] ?? 0].every(Number.isFinite))) throw Error('it holds no strokes.');
    if (Math.abs(w*p.size[1]/(h*p.size[0]) - 1) > .02) throw Error(`it is for a photo of ${w} × ${h} pixels.`);
    change(p, rows.map(([x, y, c, r]) => ({points: [[(x + .5)/w, (y + .5)/h]], colour: hex(c), width: (r || 1)/Math.sqrt(w*h)})));
  } catch (e) { problem(`${file.name}: ${e instanceof SyntaxError ? 'it is no JSON.' : e.message}`); }
};
function hex(c) {
  const pen = new OffscreenCanvas(1, 1).getContext('2d');
  pen.fillStyle = Array.isArray(c) ? `rgb(${c.join()})` : c;
  return pen.fillStyle;
}

// ---- other answers, scans

$('others').onclick = async () => {
  const p = now;
  $('variants').hidden = false;
  for (const name of facts.variants) if (!p.variants[name]) {
    try { p.variants[name] = URL.createObjectURL(await (await ask('colorize', {photo: [p.ready, p.name], ...paintOf(p), saturation: 1, variant: name, side: 300})).blob()); }
    catch (e) { problem(e.message); break; }
    if (p === now) showVariants(p);
  }
  if (p === now) showVariants(p);
};
function showVariants(p) {
  $('variants').replaceChildren(...facts.variants.filter(o => p.variants[o]).map(o => button(o, p.variants[o], o === p.variant, () => {
    p.variant = o;
    showVariants(p);
    refresh();
  })));
}

for (const id of ['saturation', 'angle', 'look']) $(id).oninput = e => { now[id] = Number(e.target.value); says(); refresh(); };
for (const id of ['contrast', 'denoise']) $(id).onchange = e => { now[id] = e.target.checked; refresh(); };
document.querySelectorAll('.crop').forEach((o, i) => o.oninput = () => { now.crop = now.crop.map((v, k) => k === i ? Number(o.value) : v); refresh(); });
$('closer').onclick = async () => {
  const p = now, [l, t, r, b] = p.crop, cut = (n, lo, hi) => Math.max(0, (1 - lo - hi) - Math.min(1 - lo - hi, 300/n))/2;
  const [x, y] = [cut(p.size[0], l, r), cut(p.size[1], t, b)];
  $('status').textContent = 'Looking closer …';
  try {
    const fields = {...scanOf(p), crop: [l + x, t + y, r + x, b + y].join(), contrast: false, side: 2**15};
    const image = await createImageBitmap(await (await ask('prepare', {photo: [p.file, p.name], ...fields})).blob()), c = $('part').firstChild;
    [c.width, c.height] = [image.width, image.height];
    c.getContext('2d').drawImage(image, 0, 0);
    $('part').hidden = false;
    $('status').textContent = 'A part from the middle, at full size.';
  } catch (e) { problem(e.message); }
};

// ---- downloads

function keep(blob, name) {
  const a = Object.assign(document.createElement('a'), {href: URL.createObjectURL(blob), download: name});
  a.click();
  setTimeout(() => URL.revokeObjectURL(a.href), 60_000);
}
async function full(p) {
  if (!p.ready) await preview(p);            // strokes and crops need its frame
  const res = await ask('colorize', {photo: [p.file, p.name], ...paintOf(p), ...scanOf(p)});
  const name = decodeURIComponent(/filename\*=UTF-8''(.*)/.exec(res.headers.get('content-disposition'))[1]);
  return {name, blob: await res.blob(), note: note(res)};
}
async function download(some, done) {
  problem();
  const results = [];
  for (const id of ['download', 'zip']) $(id).disabled = true;
  for (const [i, p] of some.entries()) {
    $('status').textContent = some.length > 1 ? `Colouring ${i + 1} of ${some.length} at full size …` : 'Colouring at full size …';
    try { results.push(await full(p)); } catch (e) { problem(e.message); }
  }
  for (const id of ['download', 'zip']) $(id).disabled = false;
  const notes = results.filter(o => o.note).map(o => `${o.name}: ${o.note}`);
  if (results.length) await done(results);
  $('status').textContent = results.length ? ['Downloaded.', ...notes].join(' ') : '';
}
$('download').onclick = () => download([now], ([o]) => keep(o.blob, o.name));
$('zip').onclick = () => download(photos, async all => keep(await zip(all), 'coloured.zip'));
$('remove').onclick = () => {
  URL.revokeObjectURL(now.url);
  photos.splice(photos.indexOf(now), 1);
  problem();
  select(photos.at(-1) || null);
};

async function zip(files) {                // stored, since photos do not get smaller
  const table = Uint32Array.from({length: 256}, (_, n) => { for (let k = 0; k < 8; k++) n = n & 1 ? n >>> 1 ^ 0xEDB88320 : n >>> 1; return n; });
  const crc = a => { let c = ~0; for (const o of a) c = table[(c ^ o) & 255] ^ c >>> 8; return ~c >>> 0; };
  const parts = [], heads = [], taken = new Set();
  let at = 0;
  const bytes = (...fields) => { const v = new DataView(new ArrayBuffer(fields.reduce((s, [n]) => s + n, 0))); let i = 0; for (const [n, x] of fields) { n === 2 ? v.setUint16(i, x, true) : v.setUint32(i, x, true); i += n; } return new Uint8Array(v.buffer); };
  for (const f of files) {
    const dot = f.name.lastIndexOf('.'), [stem, suffix] = [f.name.slice(0, dot), f.name.slice(dot)];
    let name = f.name;
    for (let n = 2; taken.has(name.toLowerCase()); n++) name = `${stem}_${n}${suffix}`;
    taken.add(name.toLowerCase());
    const text = new TextEncoder().encode(name), data = new Uint8Array(await f.blob.arrayBuffer()), n = data.length;
    const same = [[2, 20], [2, 0x800], [2, 0], [2, 0], [2, 0x21], [4, crc(data)], [4, n], [4, n], [2, text.length], [2, 0]];
    parts.push(bytes([4, 0x04034b50], ...same), text, data);
    heads.push(bytes([4, 0x02014b50], [2, 20], ...same, [2, 0], [2, 0], [2, 0], [4, 0], [4, at]), text);
    at += 30 + text.length + n;
  }
  const size = heads.reduce((s, o) => s + o.length, 0);
  return new Blob([...parts, ...heads, bytes([4, 0x06054b50], [2, 0], [2, 0], [2, files.length], [2, files.length], [4, size], [4, at], [2, 0])]);
}

// ---- files in: chosen, dropped, pasted, samples

$('files').onchange = async e => { const all = [...e.target.files]; e.target.value = ''; await add(all); };
const drop = $('drop');
document.ondragover = e => { e.preventDefault(); drop.classList.add('over'); };
document.ondragleave = () => drop.classList.remove('over');
document.ondrop = e => { e.preventDefault(); drop.classList.remove('over'); add([...e.dataTransfer.files]); };
document.onpaste = e => { const all = [...e.clipboardData.files]; if (all.length) { e.preventDefault(); add(all); } };

$('compare').oninput = compare;
[facts, samples] = await Promise.all(['facts', 'samples'].map(o => fetch(o).then(r => r.json())));
$('samples').hidden = !samples.length;
$('samples').lastChild.replaceChildren(...samples.map(o => {
  const b = button(o.replaceAll('_', ' '), `samples/${o}.jpg`, false, async () => add([new File([await (await fetch(`samples/${o}.jpg`)).blob()], `${o}.jpg`)]));
  b.removeAttribute('aria-pressed');
  return b;
}));
document.body.dataset.ready = '';
