// What the documentation says in code is so: each block of JavaScript is a program that runs as it stands, and prints what
// its comments (`//=> output`) say, in that order.
import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { testNamespace } from './support/namespace';
import { runProgram } from './support/program';

const ROOT = join(__dirname, '..');

interface Block {
  title: string;
  code: string;
}

/** The ```js blocks of a file, each named by its line. */
function blocksOf(file: string): Block[] {
  const text = readFileSync(join(ROOT, file), 'utf8');
  return [...text.matchAll(/^```js\n(.*?)^```$/gms)].map((match) => ({
    title: `${file}, line ${text.slice(0, match.index).split('\n').length + 1}`,
    code: match[1]!,
  }));
}

/** White space does not count; a date or a number of five digits stands for any, and `…` for anything. */
function expectedOutput(code: string): RegExp {
  const outputs = [...code.matchAll(/\/\/=> (.*)/g)].map(([, output]) =>
    output!
      .replaceAll(/\s/g, '')
      .replaceAll(/[.*+?^${}()|[\]\\]/g, '\\$&')
      .replaceAll(/\d{4}-\d\d-\d\d/g, '[\\d-]{10}')
      .replaceAll(/\d{5}/g, '\\d+')
      .replaceAll('…', '.*?'),
  );
  return new RegExp(outputs.join('.*?'), 's');
}

let folder: string;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'proclock-readme-'));
  mkdirSync(join(folder, 'node_modules'));
  symlinkSync(ROOT, join(folder, 'node_modules/proclock'));
});

afterEach(() => {
  rmSync(folder, { recursive: true });
});

const pages = readdirSync(join(ROOT, 'docs')).filter((name) => name.endsWith('.md'));
const blocks = ['README.md', ...pages.map((name) => `docs/${name}`)].flatMap(blocksOf);

test('there are blocks', () => {
  expect(blocks.length).toBeGreaterThan(5);
});

test.each(blocks)('$title', async ({ code }) => {
  const program = join(folder, 'program.mjs');
  writeFileSync(program, code);
  const { stdout, ...ended } = await runProgram(program, testNamespace(), folder);
  expect(ended).toEqual({ code: 0, signal: null, stderr: '' });
  expect(stdout.replaceAll(/\s/g, '')).toMatch(expectedOutput(code));
});
