// Runs the demo, or `proclock watch` beside some processes, and draws what a terminal shows: `node scripts/demo/record.mjs
// [watch]`, which writes docs/demo.svg or docs/watch.svg, and prints the same as text.
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { framesOf, pictureOf, plain, terminal } from './picture.mjs';

const root = resolve(dirname(fileURLToPath(import.meta.url)), '../..');
const COLUMNS = 100;
const ROWS = 40;
const env = { ...process.env, TERM: 'xterm', NO_COLOR: '' };

const [lines, name] = process.argv[2] === 'watch' ? [await watched(), 'watch'] : [demonstrated(), 'demo'];
const title = name === 'watch' ? 'proclock watch' : 'npm run demo';
writeFileSync(join(root, `docs/${name}.svg`), pictureOf(title, lines, COLUMNS));
console.log(lines.map(plain).join('\n'));

/** The last picture in which somebody waits, with the summary below it. */
function demonstrated() {
  const args = [...terminal(COLUMNS, ROWS), join(root, 'scripts/demo/index.mjs')];
  const frames = framesOf(execFileSync(process.execPath, args, { cwd: root, encoding: 'utf8', env }));
  const [, summary] = frames.at(-1).split('\f');
  const [picture] = frames.findLast((frame) => frame.includes('waits, number')).split('\f');
  return `${picture.trimEnd()}\n${summary.trimEnd()}`.split('\n');
}

/** A holder with two that wait, one that stands still, and what a dead one has left. */
async function watched() {
  const folder = mkdtempSync(join(tmpdir(), 'proclock-record-'));
  const namespace = 'shop';
  const program = `
    const { SharedLock } = require(${JSON.stringify(root)});
    const [mode, name] = process.argv.slice(2);
    const lock = new SharedLock(name, { namespace: process.env.WATCHED });
    lock[mode]().then(() => setInterval(() => {}, 1000));
    setImmediate(() => process.send('asked'));`;
  const children = [];
  const begin = async (file, ...args) => {
    writeFileSync(join(folder, file), program);
    const child = spawn('node', [file, ...args], {
      cwd: folder,
      stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
      env: { ...env, WATCHED: namespace },
    });
    children.push(child);
    await once(child, 'message');
    return child;
  };
  try {
    await begin('import.js', 'exclusive', 'ledger');
    await begin('audit.js', 'shared', 'ledger');
    await begin('import.js', 'exclusive', 'ledger');
    const stopped = await begin('serve.js', 'shared', 'prices');
    await begin('serve.js', 'shared', 'prices');
    const dead = await begin('report.js', 'exclusive', 'report');
    const ended = once(dead, 'exit');
    dead.kill('SIGKILL');
    await ended;
    stopped.kill('SIGSTOP');
    const args = [
      ...terminal(COLUMNS, ROWS),
      join(root, 'dist/cli/main.js'),
      'watch',
      '--namespace',
      namespace,
    ];
    const watch = spawn(process.execPath, args, { env, stdio: ['ignore', 'pipe', 'inherit'] });
    let output = '';
    for await (const text of watch.stdout.setEncoding('utf8')) {
      output += text;
      if (framesOf(output).length > 10) watch.kill('SIGINT');
    }
    const [picture] = framesOf(output).at(-2).split('\f');
    return picture.trimEnd().split('\n');
  } finally {
    for (const child of children) child.kill('SIGKILL');
    rmSync(folder, { recursive: true });
    rmSync(`/dev/shm/proclock-${process.geteuid()}-${namespace}`);
  }
}
