// Plain text for people: aligned tables, numbers of a readable length.

/** The first column to the left, figures to the right. */
export function table(header, rows) {
  const lines = [header, ...rows];
  const widths = header.map((_, column) => Math.max(...lines.map((line) => (line[column] ?? '').length)));
  return lines
    .map((line) =>
      line
        .map((cell, column) => (column === 0 ? cell.padEnd(widths[0]) : cell.padStart(widths[column])))
        .join('  ')
        .trimEnd(),
    )
    .join('\n');
}

export function heading(title) {
  return `\n${title}\n`;
}

/** With thousands separated, and digits after the point where they say something. */
export function number(value) {
  const size = Math.abs(value);
  const digits = size < 10 ? 2 : size < 1000 ? 1 : 0;
  return value.toLocaleString('en-US', { minimumFractionDigits: digits, maximumFractionDigits: digits });
}

export function spread({ low, high }) {
  return `${number(low)} - ${number(high)}`;
}
