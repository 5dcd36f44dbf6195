// What a person sees: on a terminal a table that is drawn again in place, elsewhere a line now and then.
import { performance } from 'node:perf_hooks';
import screen from '../../dist/cli/screen.js';

const FRAME_MS = 80;
const LINE_MS = 1000;
const RATE_MS = 1000; // over which throughput is averaged
const BAR_COLUMNS = 20;
const EVENTS_SHOWN = 6;

const TABLE_HEAD = `  ${'who'.padEnd(10)} ${'pid/thread'.padEnd(11)} ${'state'.padEnd(24)} entries`;
const SPARK = '▁▂▃▄▅▆▇█';

export const thousands = (value) => value.toLocaleString('en-US');

export class Display {
  #out;
  #screen;
  #snapshot;
  #actors = [];
  #events = [];
  #samples = [];
  #rates = [];
  #started = 0;
  #duration;
  #where;
  #timer;

  /** `snapshot()` says who holds and who waits, `where` where the lock is. */
  constructor(out, durationMs, snapshot, where) {
    this.#out = out;
    this.#screen = new screen.Screen(out);
    this.#duration = durationMs;
    this.#snapshot = snapshot;
    this.#where = where;
  }

  begin(actors) {
    this.#actors = actors;
    this.#started = performance.now();
    this.#timer = setInterval(() => this.#show(), this.#screen.isLive ? FRAME_MS : LINE_MS);
    this.#show();
  }

  /** Something worth telling happened. */
  event(text, style = 'bold') {
    const at = `${this.#seconds().toFixed(2).padStart(6)} s`;
    this.#events.push({ at, text, style });
    if (!this.#screen.isLive) this.#out.write(`${at}  ${text}\n`);
  }

  /** The last picture stays on the terminal. */
  end() {
    if (this.#screen.isLive && this.#timer !== undefined) this.#show();
    this.stop();
  }

  /** Leaves the terminal as it was found. */
  stop() {
    if (this.#timer === undefined) return;
    clearInterval(this.#timer);
    this.#timer = undefined;
    this.#screen.end();
  }

  paint(style, text) {
    return this.#screen.paint(style, text);
  }

  #seconds() {
    return this.#started === 0 ? 0 : (performance.now() - this.#started) / 1000;
  }

  #total(role) {
    return this.#actors.reduce((sum, actor) => sum + (actor.role === role ? actor.count : 0), 0);
  }

  /** Entries a second, over the last while. */
  #rate() {
    const now = performance.now();
    this.#samples.push({ now, count: this.#total('writer') });
    while (this.#samples.length > 2 && now - this.#samples[1].now > RATE_MS) this.#samples.shift();
    const first = this.#samples[0];
    return now === first.now ? 0 : ((this.#total('writer') - first.count) * 1000) / (now - first.now);
  }

  #show() {
    const { held, pending } = this.#snapshot();
    const rate = this.#rate();
    if (this.#screen.isLive) this.#draw(held, pending, rate);
    else this.#print(held, pending, rate);
  }

  #labels(infos) {
    const labels = infos.map((info) => this.#actors.find((actor) => actor.is(info))?.label ?? 'main');
    return labels.join(', ');
  }

  #print(held, pending, rate) {
    const holders = held.length === 0 ? 'free' : `${held[0].mode}: ${this.#labels(held)}`;
    const waiters = pending.length === 0 ? 'nobody waits' : `waiting: ${this.#labels(pending)}`;
    const entries = `${thousands(this.#total('writer'))} entries, ${thousands(Math.round(rate))}/s`;
    this.#out.write(`${this.#seconds().toFixed(2).padStart(6)} s  ${entries}; ${holders}; ${waiters}\n`);
  }

  #state(actor, held, pending) {
    if (actor.fate !== '') return ['red', `✖ ${actor.fate}`];
    const hold = held.find((info) => actor.is(info));
    if (hold !== undefined) return [hold.mode === 'exclusive' ? 'green' : 'cyan', `● holds ${hold.mode}`];
    const place = pending.findIndex((info) => actor.is(info));
    if (place >= 0) return ['yellow', `${'·'.repeat(place)}○ waits, number ${place + 1}`];
    return ['dim', actor.ended ? 'ended' : ''];
  }

  #draw(held, pending, rate) {
    const lines = [this.#heading(), [], [['dim', TABLE_HEAD]]];
    const most = Math.max(1, ...this.#actors.map((actor) => (actor.role === 'writer' ? actor.count : 0)));
    for (const actor of this.#actors) {
      const id = actor.kind === 'thread' ? `${actor.pid}/${actor.threadId}` : `${actor.pid}`;
      const [style, state] = this.#state(actor, held, pending);
      const bar =
        actor.role === 'writer'
          ? '━'.repeat(Math.round((actor.count / most) * BAR_COLUMNS))
          : 'whole-file audits';
      const count = thousands(actor.count).padStart(7);
      lines.push([
        ['', `  ${actor.label.padEnd(10)} `],
        ['dim', id.padEnd(11)],
        [style, ` ${state.padEnd(24)}`],
        ['', ` ${count}  `],
        ['dim', bar],
      ]);
    }
    const holders = held.length === 0 ? 'free' : `held ${held[0].mode} by ${this.#labels(held)}`;
    lines.push([], [['', `  lock     ${holders}, ${pending.length} waiting`]], this.#throughput(rate), []);
    const shown = this.#events.slice(-EVENTS_SHOWN);
    for (const { at, text, style } of shown)
      lines.push([
        ['dim', ` ${at}  `],
        [style, text],
      ]);
    for (let row = shown.length; row < EVENTS_SHOWN; row++) lines.push([]);
    this.#screen.draw(lines);
  }

  #heading() {
    const seconds = Math.min(this.#seconds(), this.#duration / 1000).toFixed(1);
    return [
      ['bold', 'proclock'],
      ['', ` ${this.#actors.length} processes and threads, one ledger${this.#where && ` ${this.#where}`}`],
      ['dim', `   ${seconds} of ${this.#duration / 1000} s`],
    ];
  }

  #throughput(rate) {
    this.#rates.push(rate);
    const recent = this.#rates.filter((_, index) => index % 4 === 0).slice(-32);
    const most = Math.max(1, ...recent);
    const spark = recent.map((value) => SPARK[Math.round((value / most) * (SPARK.length - 1))]).join('');
    const text = `  ledger   ${thousands(this.#total('writer'))} entries, ${thousands(Math.round(rate))} a second  `;
    return [
      ['', text],
      ['cyan', spark],
    ];
  }
}
