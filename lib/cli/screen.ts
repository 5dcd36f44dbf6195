// A picture that is drawn again in place on a terminal: what `proclock watch` and the demo have in common. Into what is no
// terminal it writes no escape codes, and nothing by itself.

const CODES = { bold: 1, dim: 2, red: 31, green: 32, yellow: 33, cyan: 36 };
const ESC = '\u001b[';

export type Style = keyof typeof CODES | '';

/** Pieces of text, each in one style. */
export type Line = ReadonlyArray<readonly [Style, string]>;

/** What is written to: `process.stdout`, or what looks like it. */
export interface Output {
  readonly isTTY?: boolean;
  readonly columns?: number;
  readonly rows?: number;
  write(text: string): unknown;
}

export class Screen {
  /** Whether it is drawn in place. */
  readonly isLive: boolean;
  readonly #hasColours: boolean;
  readonly #out: Output;
  /** Of the picture that is drawn over next; no rows where there is none. */
  #rows = 0;
  #columns: number | undefined;
  #isHidden = false;

  constructor(out: Output) {
    this.#out = out;
    this.isLive = out.isTTY === true && process.env.TERM !== 'dumb';
    this.#hasColours = this.isLive && !process.env.NO_COLOR;
  }

  paint(style: Style, text: string): string {
    return this.#hasColours && style !== '' ? `${ESC}${CODES[style]}m${text}${ESC}0m` : text;
  }

  /** As text, however wide. */
  textOf(line: Line): string {
    return line
      .map(([style, text]) => this.paint(style, text))
      .join('')
      .trimEnd();
  }

  /**
   * Over the last picture. No line may wrap, or the count of rows would be wrong: each is cut to the terminal, and since one of
   * wide characters is still too long, the terminal does not wrap meanwhile. A terminal that was resized may have wrapped the
   * last picture anew: nobody knows its rows any more, and all goes.
   */
  draw(lines: readonly Line[]): void {
    const { columns } = this.#out;
    const rows = Math.max(1, (this.#out.rows ?? 24) - 1);
    const hide = this.#isHidden ? '' : `${ESC}?25l`;
    this.#isHidden = true;
    const over = columns === this.#columns ? `${ESC}${this.#rows}A\r` : `${ESC}H${ESC}J`;
    const shown = lines.slice(0, rows);
    const text = shown.map((line) => `${this.#fit(line, (columns ?? 80) - 1)}${ESC}K\n`).join('');
    this.#out.write(`${hide}${this.#rows > 0 ? over : ''}${ESC}?7l${text}${ESC}J${ESC}?7h`);
    this.#rows = shown.length;
    this.#columns = columns;
  }

  /** Leaves the terminal as it was found, with the last picture on it: another one is drawn below. */
  end(): void {
    if (this.#isHidden) this.#out.write(`${ESC}?25h`);
    this.#isHidden = false;
    this.#rows = 0;
  }

  #fit(line: Line, columns: number): string {
    let left = columns;
    let text = '';
    for (const [style, part] of line) {
      const cut = [...part].slice(0, left).join('');
      left -= [...cut].length;
      text += this.paint(style, cut);
    }
    return text;
  }
}
