// docs/troubleshooting.md quotes errors: each is made here, and is what the package says.
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { testNamespace } from './support/namespace';
import { enter, Head, inProcess, type Outcome, segmentFile } from './support/segment';

const PAGE = readFileSync(join(__dirname, '../docs/troubleshooting.md'), 'utf8');
const QUOTED = [...PAGE.matchAll(/^```text\n(.*)\n```$/gm)].map((match) => match[1]!);

const NOBODY = 65534;
const asRoot = process.geteuid?.() === 0;
if (!asRoot) console.log('not run as root: /dev/shm can not be replaced, and files can not be given away');
const testAsRoot = asRoot ? test : test.skip; // the reason was printed
const ON_GLIBC = readFileSync('/proc/self/maps', 'utf8').includes('/libc.so.6');
if (!ON_GLIBC) console.log('not on glibc: the page says what is seen there when musl was first');

let namespace: string;
const made = new Set<string>();

beforeEach(() => {
  namespace = testNamespace();
});

/** The outcome as the page has it: for another user and namespace. */
function shown({ code, message }: Outcome): string {
  return `${code}: ${message}`.replaceAll(
    /\/dev\/shm\/proclock-\w+-[\w.-]+/g,
    '/dev/shm/proclock-1000-default',
  );
}

function expectQuoted(outcome: Outcome): void {
  const text = shown(outcome);
  expect(QUOTED).toContain(text);
  made.add(text);
}

/** Runs a program after a command that changes what it finds. */
const after = (command: string) => ['unshare', '--mount', 'sh', '-c', `${command} && exec "$@"`, 'sh'];
const open = `const lock = new SharedLock('x', { namespace });`;

testAsRoot('shared memory is full', () => {
  expectQuoted(inProcess(namespace, open, after('mount -t tmpfs -o size=16k tmpfs /dev/shm')));
});

testAsRoot('there is no shared memory', () => {
  const command = 'mount -t tmpfs tmpfs /dev && mknod /dev/null c 1 3 && mknod /dev/urandom c 1 9';
  expectQuoted(inProcess(namespace, open, after(command)));
});

testAsRoot('shared memory is read-only', () => {
  expectQuoted(inProcess(namespace, open, after('mount -t tmpfs -o ro tmpfs /dev/shm')));
});

testAsRoot('shared memory is not writable for this user', () => {
  const body = `process.seteuid(${NOBODY});
    try { ${open} } catch (error) { return { code: error.code, errno: error.cause.errno }; }`;
  const { value } = inProcess(namespace, body, after('mount -t tmpfs -o mode=0755 tmpfs /dev/shm'));
  expect(value).toEqual({ code: 'ERR_LOCK_PERMISSION', errno: 13 });
});

testAsRoot('the segment is of another user', () => {
  enter(namespace);
  const file = segmentFile(namespace);
  expectQuoted(
    inProcess(namespace, `require('node:fs').chownSync('${file}', ${NOBODY}, ${NOBODY}); ${open}`),
  );
});

testAsRoot('the segment is of a group that we are not in', () => {
  const openWithGroup = `new SharedLock('x', { namespace, group: 4 }).close();`;
  expect(inProcess(namespace, openWithGroup).code).toBe('');
  expectQuoted(
    inProcess(
      namespace,
      `process.setgroups([]); process.setgid(${NOBODY}); process.setuid(${NOBODY}); ${openWithGroup}`,
    ),
  );
});

testAsRoot('two users have two locks of one name', () => {
  const body = `${open} lock.exclusiveSync();
    const source = 'console.log(new (require(process.argv[1]).SharedLock)("x", { namespace: process.argv[2] }).tryExclusive() !== null)';
    const dist = Object.keys(require.cache).find((file) => file.endsWith('dist/index.js'));
    const { stdout } = require('node:child_process').spawnSync(process.execPath, ['-e', source, dist, namespace], { uid: ${NOBODY} });
    return String(stdout) === 'true\\n';`;
  expect(inProcess(namespace, body)).toMatchObject({ code: '', value: true });
});

(ON_GLIBC ? test : test.skip)('a libc that is not ours', () => {
  const outcome = inProcess(
    namespace,
    `${open}
     const fs = require('node:fs');
     const fd = fs.openSync('${segmentFile(namespace)}', 'r+');
     const family = Buffer.alloc(1);
     fs.readSync(fd, family, 0, 1, ${Head.ABI});
     fs.writeSync(fd, Buffer.from([3 - family[0]]), 0, 1, ${Head.ABI});
     const source = 'new (require(process.argv[1]).SharedLock)("x", { namespace: process.argv[2] })';
     const program = 'try { ' + source + ' } catch ({ code, message }) { console.log(JSON.stringify({ code, message })) }';
     const dist = Object.keys(require.cache).find((file) => file.endsWith('dist/index.js'));
     const { stdout } = require('node:child_process').spawnSync(process.execPath, ['-e', program, dist, namespace]);
     return JSON.parse(stdout);`,
  );
  expectQuoted(outcome.value as Outcome);
});

test('the segment was deleted', () => {
  const removed = `${open} require('node:fs').unlinkSync('${segmentFile(namespace)}'); await lock.exclusive({ timeout: 1000 });`;
  expectQuoted(inProcess(namespace, removed));
});

test('the segment was cut', () => {
  enter(namespace);
  const cut = `require('node:fs').truncateSync('${segmentFile(namespace)}', 1_000_000); ${open}`;
  expectQuoted(inProcess(namespace, cut));
});

test('the segment was cut under a process that uses it', () => {
  const cut = `${open} require('node:fs').truncateSync('${segmentFile(namespace)}', 0); lock.exclusiveSync();`;
  expect(() => inProcess(namespace, cut)).toThrow('ended with SIGBUS');
});

test('the file descriptors were closed', () => {
  expectQuoted(
    inProcess(
      namespace,
      `${open}
       const fs = require('node:fs');
       for (const fd of fs.readdirSync('/proc/self/fd')) {
         let target = '';
         try { target = fs.readlinkSync('/proc/self/fd/' + fd); } catch {} // that of the listing itself
         if (target.includes(namespace)) fs.closeSync(Number(fd));
       }
       for (;;) {
         lock.exclusiveSync().release();
         await new Promise(setImmediate);
       }`,
    ),
  );
});

test('the limit on the size of files is too low', () => {
  if (spawnSync('prlimit', ['--fsize=100000', 'true']).status !== 0) {
    console.log('a file-size limit can not be set here (prlimit)');
    return;
  }
  expectQuoted(inProcess(namespace, open, ['prlimit', '--fsize=100000']));
});

(asRoot && ON_GLIBC ? test : test.skip)('nothing else is quoted', () => {
  expect([...made].sort()).toEqual([...QUOTED].sort());
});
