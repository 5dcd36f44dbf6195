// What a terminal shows, as a picture: text with SGR codes in, SVG out.
const LINE_HEIGHT = 18;
const CHARACTER_WIDTH = 8.4; // each text is made as wide as its characters, whatever the font
const MARGIN = 16;
const COLOURS = { 31: '#f07178', 32: '#7fd962', 33: '#e6b450', 36: '#59c2ff' };
const ESC = String.fromCharCode(27);
const SGR = new RegExp(`${ESC}\\[(\\d+)m`, 'g');
const FRAME = new RegExp(`${ESC}\\[\\d+A\\r`);
const ERASE = new RegExp(`${ESC}\\[(\\?(?:7|25)[lh]|[KJ])`, 'g');

/** To be run before a program that is to take its standard output for a terminal. */
export function terminal(columns, rows) {
  const code = `Object.assign(process.stdout, { isTTY: true, columns: ${columns}, rows: ${rows} })`;
  return ['--import', `data:text/javascript,${encodeURIComponent(code)}`];
}

/** What was drawn in place, one picture after the other; behind `\f` is what was written after it. */
export function framesOf(output) {
  return output.replaceAll(ERASE, (code) => (code.endsWith('J') ? '\f' : '')).split(FRAME);
}

export const plain = (line) => line.replaceAll(SGR, '').trimEnd();

const escaped = (text) => text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll(' ', '&#160;');

/** One line as text elements, each where its first visible character belongs. */
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
      const text = part.trim();
      const x = MARGIN + (column + part.indexOf(text)) * CHARACTER_WIDTH;
      column += [...part].length;
      if (text === '') return '';
      const width = ([...text].length * CHARACTER_WIDTH).toFixed(1);
      return `<text x="${x.toFixed(1)}" y="${y}" textLength="${width}" lengthAdjust="spacingAndGlyphs"${style}>${escaped(text)}</text>`;
    })
    .join('');
}

/** @param columns how wide the terminal is */
export function pictureOf(title, lines, columns) {
  const width = Math.ceil(2 * MARGIN + columns * CHARACTER_WIDTH);
  const height = 2 * MARGIN + (lines.length + 1) * LINE_HEIGHT;
  return `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}" viewBox="0 0 ${width} ${height}">
<title>${title}</title>
<rect width="100%" height="100%" rx="8" fill="#0f131a"/>
<g font-family="ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace" font-size="14" fill="#d6d9de">
${lines
  .map(drawn)
  .filter((line) => line !== '')
  .join('\n')}
</g>
</svg>
`;
}
