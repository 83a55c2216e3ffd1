"""The report's gallery: detections side by side, filtered by class, by mistake and by who missed what."""
import json
from html import escape

from .gallery import KINDS, Gallery

COLORS = {'correct': '#0a7d2c', 'classification': '#a0308f', 'localisation': '#a35c00', 'both': '#5b3b00',
          'duplicate': '#1f6fb2', 'background': '#d02a00', 'missed': '#d0003f', 'ignored': '#6b6b6b'}
MEANING = {
    'correct': 'right class, IoU at least 0.5', 'classification': 'on an object of another class',
    'localisation': 'IoU with its object from 0.1 to 0.5', 'both': 'poor box on another class',
    'duplicate': 'the object has a better detection', 'background': 'no object there',
    'missed': 'an object that no detection above the threshold is right about',
    'ignored': 'on a crowd, or beyond the best 100'}

STYLE = '''
.filters { display: flex; flex-wrap: wrap; gap: .5rem 1.2rem; align-items: end; margin: .6rem 0; }
.filters label { display: flex; flex-direction: column; font-size: .85rem; max-width: 100%; }
.filters select, .filters input { font: inherit; max-width: 16rem; min-width: 8rem; }
.photo { border-top: 1px solid #ddd; padding: .6rem 0; } .photo h3 { overflow-wrap: anywhere; font-weight: normal; }
.panels { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 17rem), 1fr)); gap: .6rem; }
.panels figure { margin: 0; } .panels figcaption { font-size: .85rem; overflow-wrap: anywhere; }
.panels svg { max-width: none; background: #eee; }
.panels svg text { font-size: 11px; paint-order: stroke; stroke: #fff; stroke-width: 3px; }
.panels rect { fill: none; stroke-width: 2; } .panels .missed { stroke-dasharray: 5 3; }
.panels rect { pointer-events: all; }
'''

SCRIPT = '''
'use strict';
(() => {
  const data = JSON.parse(document.getElementById('gallery-data').textContent);
  const pick = (id) => document.getElementById('gallery-' + id);
  const [klass, missed, found, kind, score] = ['class', 'missed', 'found', 'kind', 'score'].map(pick);
  const make = (name, attributes, parent, text) => {
    const node = document.createElementNS('http://www.w3.org/2000/svg', name);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    if (text !== undefined) node.textContent = text;
    return parent.appendChild(node);
  };
  const draw = (svg, [x, y, w, h], label, type, title, height) => {
    const rect = make('rect', {x, y, width: w, height: h, stroke: data.colors[type], class: type}, svg);
    make('title', {}, rect, title);
    const base = y > 12 ? y - 3 : Math.min(y + h + 11, height - 2);
    make('text', {x: Math.max(x, 1), y: base, fill: data.colors[type]}, svg, label);
  };
  const panel = (image, name, parent, note) => {
    const figure = parent.appendChild(document.createElement('figure'));
    const svg = make('svg', {viewBox: `0 0 ${image.w} ${image.h}`, role: 'img', 'aria-label': name}, figure);
    make('image', {href: image.src, width: image.w, height: image.h}, svg);
    const caption = figure.appendChild(document.createElement('figcaption'));
    caption.textContent = name + note;
    return svg;
  };
  const number = (select) => select.value === '' ? null : Number(select.value);
  const show = () => {
    const wanted = {klass: number(klass), missed: number(missed), found: number(found), kind: number(kind)};
    const least = Number(score.value);
    pick('score-value').textContent = least.toFixed(2);
    const of_class = (label) => wanted.klass === null || label === wanted.klass;
    const list = pick('list');
    list.replaceChildren();
    let count = 0;
    for (const image of data.images) {
      const things = image.objects.filter((thing) => of_class(thing[1]));
      const rows = image.detections.map((all) => all.filter((row) => of_class(row[1]) && row[2] >= least));
      const about = (thing) => (wanted.missed === null || thing[2][wanted.missed] < least)
        && (wanted.found === null || thing[2][wanted.found] >= least);
      if (wanted.missed !== null || wanted.found !== null) { if (!things.some(about)) continue; }
      if (wanted.klass !== null && !things.length && !rows.some((some) => some.length)) continue;
      if (wanted.kind !== null && !rows.some((some) => some.some((row) => row[3] === wanted.kind))) continue;
      count += 1;
      const article = list.appendChild(document.createElement('article'));
      article.className = 'photo';
      article.appendChild(document.createElement('h3')).textContent = image.name;
      const panels = article.appendChild(document.createElement('div'));
      panels.className = 'panels';
      const truth = panel(image, 'ground truth', panels, `: ${things.length} object${things.length === 1 ? '' : 's'}`);
      for (const [box, label] of things) draw(truth, box, data.classes[label], 'truth', data.classes[label], image.h);
      data.names.forEach((name, i) => {
        const lost = things.filter((thing) => thing[2][i] < least);
        const svg = panel(image, name, panels, `: ${things.length - lost.length} found, ${lost.length} missed`);
        for (const [box, label] of lost) draw(svg, box, '', 'missed', `missed: ${data.classes[label]}`, image.h);
        for (const [box, label, value, type] of rows[i].slice().reverse()) {
          const title = `${data.classes[label]} ${value.toFixed(2)}, ${data.kinds[type]}`;
          draw(svg, box, `${data.classes[label]} ${value.toFixed(2)}`, data.kinds[type], title, image.h);
        }
      });
    }
    pick('count').textContent = `${count} of ${data.images.length} images`;
  };
  for (const control of [klass, missed, found, kind]) control.addEventListener('change', show);
  score.addEventListener('input', show);
  show();
})();
'''


def gallery(seen: Gallery) -> str:
    """The filters, the data and the place for the images; :data:`SCRIPT` fills it."""
    detectors = list(enumerate(seen.names))
    kinds = [(place, kind) for place, kind in enumerate(KINDS) if kind not in ('missed', 'ignored')]
    selects = [('class', 'class', 'all', list(enumerate(seen.classes))),
               ('missed', 'an object missed by', 'anyone', detectors),
               ('found', 'and found by', 'anyone', detectors), ('kind', 'with a detection that is', 'anything', kinds)]
    filters = ''.join(_select(*one) for one in selects)
    data = dict(names=seen.names, classes=seen.classes, kinds=KINDS, images=seen.images,
                colors=dict(COLORS, truth='#0b4f9e'))
    # a closing tag within a name must not end the script; JSON allows < to be escaped
    text = json.dumps(data, separators=(',', ':'), allow_nan=False).replace('<', '\\u003c')
    return (f'<p>The {len(seen.images)} images, of {seen.count} looked at, in which most objects are found by some '
            f'detectors and missed by others at score 0.3.</p>{_legend()}'
            f'<div class="filters">{filters}<label>score at least <output id="gallery-score-value">0.30</output>'
            '<input type="range" id="gallery-score" min="0.05" max="0.95" step="0.05" value="0.3"></label>'
            '<strong id="gallery-count" role="status"></strong></div>'
            '<noscript><p>The images need JavaScript.</p></noscript><div id="gallery-list"></div>'
            f'<script type="application/json" id="gallery-data">{text}</script>')


def _select(name: str, title: str, nothing: str, options: list[tuple[int, str]]) -> str:
    items = ''.join(f'<option value="{value}">{escape(text)}</option>' for value, text in options)
    return (f'<label>{escape(title)}<select id="gallery-{name}"><option '
            f'value="">{escape(nothing)}</option>{items}</select></label>')


def _legend() -> str:
    items = ''.join(f'<li><span class="key" style="background:{COLORS[kind]}"></span>{kind}: '
                    f'{escape(MEANING[kind])}</li>'
                    for kind in KINDS)
    return f'<ul class="legend notes">{items}</ul>'
