// What `proclock watch` and the demo draw on a terminal: in place, whatever is in its lines and whatever became of the terminal.
import { type Line, Screen } from '../lib/cli/screen';

const ESC = '\u001b[';
const LINES: Line[] = [[['', 'one']], [['', 'two']]];
/** Both lines, with nothing left behind them or below; nothing wraps meanwhile. */
const DRAWN = `${ESC}?7lone${ESC}K\ntwo${ESC}K\n${ESC}J${ESC}?7h`;

class Terminal {
  readonly isTTY = true;
  columns = 80;
  rows = 24;
  #written = '';

  write(text: string): void {
    this.#written += text;
  }

  /** Since it was last taken. */
  take(): string {
    const text = this.#written;
    this.#written = '';
    return text;
  }
}

const { NO_COLOR, TERM } = process.env;
let terminal: Terminal;
let screen: Screen;
beforeEach(() => {
  Object.assign(process.env, { NO_COLOR: '1', TERM: 'xterm' });
  terminal = new Terminal();
  screen = new Screen(terminal);
});
afterAll(() => {
  for (const [name, value] of Object.entries({ NO_COLOR, TERM }))
    if (value === undefined) delete process.env[name];
    else process.env[name] = value;
});

test('a picture is drawn over the last one, without a cursor until the end', () => {
  screen.draw(LINES);
  expect(terminal.take()).toBe(`${ESC}?25l${DRAWN}`);
  screen.draw(LINES);
  expect(terminal.take()).toBe(`${ESC}2A\r${DRAWN}`);
  screen.end();
  expect(terminal.take()).toBe(`${ESC}?25h`);
  screen.end();
  expect(terminal.take()).toBe('');
});

test('after an end the next picture is drawn below', () => {
  screen.draw(LINES);
  screen.end();
  terminal.columns = 60;
  terminal.take();
  screen.draw(LINES);
  expect(terminal.take()).toBe(`${ESC}?25l${DRAWN}`);
});

test('all goes that is on a terminal of another width', () => {
  screen.draw(LINES);
  terminal.take();
  terminal.columns = 40;
  screen.draw(LINES);
  expect(terminal.take()).toBe(`${ESC}H${ESC}J${DRAWN}`);
  screen.draw(LINES);
  expect(terminal.take()).toBe(`${ESC}2A\r${DRAWN}`);
});

test('lines are cut, and a picture of more lines than the terminal has', () => {
  Object.assign(terminal, { columns: 10, rows: 3 });
  const line: Line = [
    ['', 'a'.repeat(5)],
    ['bold', '漢'.repeat(40)],
  ];
  screen.draw([line, line, line]);
  const cut = `${'a'.repeat(5)}${'漢'.repeat(4)}${ESC}K\n`;
  expect(terminal.take()).toBe(`${ESC}?25l${ESC}?7l${cut}${cut}${ESC}J${ESC}?7h`);
});
