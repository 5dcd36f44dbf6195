// The documents point at what is there: their links lead somewhere, and docs/guarantees.md names checks that exist.
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join, normalize } from 'node:path';

const ROOT = join(__dirname, '..');
const DOCUMENTS = [
  'README.md',
  'CHANGELOG.md',
  'CONTRIBUTING.md',
  'SECURITY.md',
  ...readdirSync(join(ROOT, 'docs'))
    .filter((name) => name.endsWith('.md'))
    .map((name) => `docs/${name}`),
];

const read = (file: string) => readFileSync(join(ROOT, file), 'utf8');

/** The anchors of a document's headings, as GitHub and npm make them. */
function anchorsOf(file: string): string[] {
  return [...read(file).matchAll(/^#+ (.*)$/gm)].map(([, title]) =>
    title!
      .replaceAll('\\', '')
      .toLowerCase()
      .replaceAll(/[^\p{L}\p{N} _-]/gu, '')
      .replaceAll(' ', '-'),
  );
}

describe.each(DOCUMENTS)('%s', (document) => {
  test('has no link that leads nowhere', () => {
    const links = [...read(document).matchAll(/\]\(([^)\s]+)\)/g)].map(([, link]) => link!);
    const broken = links.filter((link) => {
      if (/^https?:/.test(link)) return false;
      const [path = '', anchor] = link.split('#');
      const target = path === '' ? document : normalize(join(dirname(document), path));
      if (!existsSync(join(ROOT, target))) return true;
      return anchor !== undefined && !anchorsOf(target).includes(anchor);
    });
    expect(broken).toEqual([]);
  });

  test('names no npm script that is not there', () => {
    const { scripts } = JSON.parse(read('package.json')) as { scripts: Record<string, string> };
    const named = [...read(document).matchAll(/npm run ([\w:]+)/g)].map(([, name]) => name!);
    expect(named.filter((name) => scripts[name] === undefined)).toEqual([]);
  });
});

test('the README can be read in five minutes', () => {
  expect(read('README.md').split('\n').length).toBeLessThanOrEqual(250);
});

test('docs/README.md leads to each page', () => {
  const pages = DOCUMENTS.filter((file) => file.startsWith('docs/') && file !== 'docs/README.md');
  const named = [...read('docs/README.md').matchAll(/\]\((\w[\w-]*\.md)\)/g)].map(
    ([, page]) => `docs/${page}`,
  );
  expect(named.sort()).toEqual(pages.sort());
});

test('docs/guarantees.md names checks that exist', () => {
  const mutants = JSON.parse(read('native/model/mutants.json')) as Array<{ model: string }>;
  const models = new Set(mutants.map(({ model }) => model));
  const rows = [
    ...read('docs/guarantees.md').matchAll(/^\| (?!guarantee )([^|]+)\|([^|]*)\|([^|]*)\|([^|]*)\|$/gm),
  ];
  expect(rows.length).toBeGreaterThan(10);
  const namesIn = (cell: string) =>
    cell
      .replaceAll('`', '')
      .split(',')
      .map((name) => name.trim())
      .filter(Boolean);
  const unknown = rows.flatMap(([, , model, native, jest]) => [
    ...namesIn(model!).filter((name) => !models.has(name)),
    ...namesIn(native!).filter((name) => !existsSync(join(ROOT, `test/native/${name}.cc`))),
    ...namesIn(jest!).filter((name) => !existsSync(join(ROOT, `test/${name}.test.ts`))),
  ]);
  expect(unknown).toEqual([]);
});

test('docs/architecture.md has each file of lib/ and test/ on its map', () => {
  const map = read('docs/architecture.md');
  const filesIn = (folder: string, pattern: RegExp) =>
    readdirSync(join(ROOT, folder)).filter((name) => pattern.test(name));
  const missing = [
    ...['lib/common', 'lib/shm', 'lib/local', 'lib/remote', 'lib/engines/memory', 'lib/cli'].flatMap(
      (folder) => filesIn(folder, /\.ts$/),
    ),
    ...filesIn('test/support', /./).map((name) => `support/${name}`),
    ...filesIn('test/engines', /\.ts$/).map((name) => `engines/${name.replace('.test.ts', '')}`),
    ...filesIn('test', /\.test\.ts$/).map((name) =>
      name.replace(/^web-locks-.*$/, 'web-locks-*').replace('.test.ts', ''),
    ),
  ].filter((name) => !map.includes(`\`${name}\``));
  expect(missing).toEqual([]);
});
