// Runs the demo and draws what a terminal shows: `node scripts/demo/record.mjs`, which writes docs/demo.svg and prints the
// same as text. The picture is the last one in which somebody waits, with the summary below it.
import { execFileSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = resolve(dirname(fileURLToPath(import.meta.url)), '../..');
const COLUMNS = 100;
const ROWS = 40;
const LINE_HEIGHT = 18;
const CHARACTER_WIDTH = 8.4; // of the font size below, in most fixed-width fonts
const MARGIN = 16;
const COLOURS = { 31: '#f07178', 32: '#7fd962', 33: '#e6b450', 36: '#59c2ff' };
const ESC = String.fromCharCode(27);
const SGR = new RegExp(`${ESC}\\[(\\d+)m`, 'g');
const FRAME = new RegExp(`${ESC}\\[\\d+A\\r`);
const ERASE = new RegExp(`${ESC}\\[(\\?25[lh]|[KJ])`, 'g');

// The demo draws in place if stdout is a terminal; here it is told so.
const terminal = `Object.assign(process.stdout, { isTTY: true, columns: ${COLUMNS}, rows: ${ROWS} })`;
const output = execFileSync(
  process.execPath,
  ['--import', `data:text/javascript,${encodeURIComponent(terminal)}`, join(root, 'scripts/demo/index.mjs')],
  { cwd: root, encoding: 'utf8', env: { ...process.env, TERM: 'xterm', NO_COLOR: '' } },
);
const frames = output.replaceAll(ERASE, (code) => (code.endsWith('J') ? '\f' : '')).split(FRAME);
const [, summary] = frames.at(-1).split('\f');
const [picture] = frames.findLast((frame) => frame.includes('waits, number')).split('\f');
const lines = `${picture.trimEnd()}\n${summary.trimEnd()}`.split('\n');

const escaped = (text) => text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll(' ', '&#160;');

/** One line as text elements, each where its first character belongs, whatever the font. */
function drawn(line, row) {
  const y = MARGIN + (row + 1) * LINE_HEIGHT;
  let column = 0;
  let style = '';
  return line
    .split(SGR)
    .map((part, index) => {
      if (index % 2 === 1) {
        const code = Number(part);
        style = { 0: '', 1: ' font-weight="bold"', 2: ' opacity="0.55"' }[code] ?? ` fill="${COLOURS[code]}"`;
        return '';
      }
      const x = MARGIN + column * CHARACTER_WIDTH;
      column += part.length;
      return part.trim() === '' ? '' : `<text x="${x.toFixed(1)}" y="${y}"${style}>${escaped(part)}</text>`;
    })
    .join('');
}

const width = Math.ceil(2 * MARGIN + COLUMNS * CHARACTER_WIDTH);
const height = 2 * MARGIN + (lines.length + 1) * LINE_HEIGHT;
writeFileSync(
  join(root, 'docs/demo.svg'),
  `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}" viewBox="0 0 ${width} ${height}">
<title>npm run demo</title>
<rect width="100%" height="100%" rx="8" fill="#0f131a"/>
<g font-family="ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace" font-size="14" fill="#d6d9de">
${lines
  .map(drawn)
  .filter((line) => line !== '')
  .join('\n')}
</g>
</svg>
`,
);
console.log(lines.map((line) => line.replaceAll(SGR, '').trimEnd()).join('\n'));
