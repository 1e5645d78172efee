"README.md from nbs/index.ipynb: markdown cells as they are, code cells with the text that they print."
import json, re, sys
from pathlib import Path

root = Path(__file__).resolve().parent.parent

def readme():
    "The text of the README"
    parts = []
    for cell in json.loads((root/'nbs'/'index.ipynb').read_text(encoding='utf-8'))['cells']:
        src = ''.join(cell['source'])
        if cell['cell_type'] == 'markdown': parts.append(re.sub(r'(\]\(|src=")(?=(images|tutorials|howto|explanations|base|nets|data|train|games|use|paper|learner|cli|app)[/.])', r'\1nbs/', src))
        elif '#| hide' not in src:
            parts.append(f"```python\n{chr(10).join(o for o in src.splitlines() if not o.startswith('#|'))}\n```")
            out = ''.join(''.join(o.get('text', o.get('data', {}).get('text/plain', ''))) for o in cell['outputs'] if 'image/jpeg' not in o.get('data', {}))
            if out: parts.append('\n'.join(f'    {o}' for o in out.splitlines()))
    return '<!-- Made from nbs/index.ipynb by `python .ci/readme.py`: edit there. -->\n\n' + '\n\n'.join(parts) + '\n'

if __name__ == '__main__': (root/'README.md').write_text(readme(), encoding='utf-8')
