// A Local is the object that init makes; each thread and process has one of its own, and makes it anew where it goes on
// with the state of another process.
import { execFileSync } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { inspect, isDeepStrictEqual } from 'node:util';
import { Local } from '../lib';
import { currentEpoch, followForks } from '../lib/local/epoch';
import { ACTOR_KINDS, startActors } from './support/actor';
import { bundle } from './support/bundle';
import { withCode } from './support/locks';
import { segmentFiles, testNamespace } from './support/namespace';
import { DIST } from './support/segment';

const ROOT = join(__dirname, '..');
const CHILD_MS = 20_000;

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'proclock-local-'));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

/** What a program printed; it fails unless the program exits with 0. */
function run(args: string[], cwd = ROOT): string {
  return execFileSync(process.execPath, args, {
    encoding: 'utf8',
    cwd,
    timeout: CHILD_MS,
    killSignal: 'SIGKILL',
  });
}

class Counter {
  #count = 0;
  step = 1;
  up(): this {
    this.#count += this.step;
    return this;
  }
  get count(): number {
    return this.#count;
  }
  set count(value: number) {
    this.#count = value;
  }
}

describe('a Local is used as the object itself', () => {
  test('its properties are set, read, found and deleted', () => {
    const local = new Local<{ x?: number; [key: symbol]: string }>();
    const symbol = Symbol('key');
    expect('x' in local).toBe(false);
    expect(local.x).toBeUndefined();
    local.x = 1;
    local[symbol] = 'symbol';
    expect(local.x).toBe(1);
    expect('x' in local).toBe(true);
    expect(symbol in local).toBe(true);
    expect(Object.hasOwn(local, 'x')).toBe(true);
    expect(Object.keys(local)).toEqual(['x']);
    expect(Reflect.ownKeys(local)).toEqual(['x', symbol]);
    expect({ ...local }).toEqual({ x: 1, [symbol]: 'symbol' });
    expect(JSON.stringify(local)).toBe('{"x":1}');
    expect(delete local.x).toBe(true);
    expect('x' in local).toBe(false);
    expect(Object.keys(local)).toEqual([]);
  });

  test('what is in it is seen in a loop, by Object.entries, by comparisons and by util.inspect', () => {
    const local = new Local(() => ({ a: 1, b: { c: [2] } }));
    const keys: string[] = [];
    for (const key in local) keys.push(key);
    expect(keys).toEqual(['a', 'b']);
    expect(Object.entries(local)).toEqual([
      ['a', 1],
      ['b', { c: [2] }],
    ]);
    expect(isDeepStrictEqual(local, { a: 1, b: { c: [2] } })).toBe(true);
    expect(inspect(local)).toBe(inspect({ a: 1, b: { c: [2] } }));
    expect(inspect({ local })).toBe(inspect({ local: { a: 1, b: { c: [2] } } }));
    expect(inspect(new Local(() => new Counter()))).toBe(inspect(new Counter()));
  });

  test('two Locals have nothing in common', () => {
    const init = () => ({ list: [] as number[] });
    const [one, other] = [new Local(init), new Local(init)];
    one.list.push(1);
    expect(other.list).toEqual([]);
  });

  test('names that its implementation uses are as free as any', () => {
    const local = new Local();
    for (const key of [
      'content',
      'epoch',
      'making',
      'methods',
      'local',
      'init',
      'then',
      'toJSON',
      'constructor',
    ]) {
      local[key] = key;
      expect(local[key]).toBe(key);
      expect(delete local[key]).toBe(true);
    }
    expect(Object.keys(local)).toEqual([]);
    expect(local.content).toBeUndefined();
    expect('content' in local).toBe(false);
    expect(Object.getOwnPropertyDescriptor(local, 'content')).toBeUndefined();
    expect(local[inspect.custom]).toBeUndefined();
  });

  test('an object that inherits from it has properties of its own', () => {
    const local = new Local(() => ({
      x: 1,
      get me(): object {
        return this;
      },
    }));
    const heir = Object.create(local);
    heir.x = 2;
    expect([heir.x, local.x]).toEqual([2, 1]);
    expect(heir.me).toBe(heir);
  });
});

describe('init', () => {
  test('runs at the first access of any kind, and once', () => {
    const accesses: Array<(local: { x?: number }) => unknown> = [
      (local) => local.x,
      (local) => 'x' in local,
      (local) => (local.x = 1),
      (local) => delete local.x,
      (local) => Object.keys(local),
      (local) => Object.getOwnPropertyDescriptor(local, 'x'),
      (local) => Object.defineProperty(local, 'x', { value: 1 }),
      (local) => Object.getPrototypeOf(local),
      (local) => Object.setPrototypeOf(local, null),
      (local) => inspect(local),
    ];
    for (const access of accesses) {
      let runs = 0;
      const local = new Local<{ x?: number }>(() => {
        runs++;
        return {};
      });
      expect(runs).toBe(0);
      access(local);
      expect(runs).toBe(1);
      access(local);
      expect(runs).toBe(1);
    }
  });

  test.each([null, 0, 'init', {}, Symbol('init')])('that is no function is refused: %p', (init) => {
    const make = () => new Local(init as never);
    expect(make).toThrow(TypeError);
    expect(make).toThrow(withCode('ERR_INVALID_ARG_TYPE'));
  });

  test.each([undefined, null, 1, 'x', () => {}])(
    'that returns no object is an error at every access: %p',
    (value) => {
      const local = new Local(() => value as object);
      for (let i = 0; i < 2; i++) {
        expect(() => Object.keys(local)).toThrow(TypeError);
        expect(() => 'x' in local).toThrow(withCode('ERR_INVALID_RETURN_VALUE'));
      }
    },
  );

  test('that throws leaves the Local as it was: the next access tries again', () => {
    let tries = 0;
    const local = new Local(() => {
      if (++tries < 3) throw new Error(`try ${tries}`);
      return { tries };
    });
    expect(() => local.tries).toThrow('try 1');
    expect(() => {
      local.tries = 0;
    }).toThrow('try 2');
    expect(local.tries).toBe(3);
  });

  test('that uses the Local which it is to make is an error, and no endless recursion', () => {
    let direct = true;
    const local: { x: number } = new Local(() => ({ x: direct ? local.x : 5 }));
    expect(() => local.x).toThrow(withCode('ERR_INVALID_STATE'));
    direct = false;
    expect(local.x).toBe(5);
    const itself: object = new Local(() => itself);
    expect(() => Object.keys(itself)).toThrow(withCode('ERR_INVALID_STATE'));
  });

  test('may use another Local, and return one', () => {
    const inner = new Local(() => ({ x: 1 }));
    const outer = new Local(() => inner);
    outer.x++;
    expect(inner.x).toBe(2);
    expect(Object.keys(outer)).toEqual(['x']);
  });
});

describe('what init made is used with its prototype', () => {
  test('getters, setters and methods see private fields', () => {
    const local = new Local(() => new Counter());
    local.up();
    local.step = 10;
    local.up();
    expect(local.count).toBe(11);
    local.count = 5;
    expect(local.up().count).toBe(15);
    expect(Object.keys(local)).toEqual(['step']);
  });

  test('it is an instance of its class, and of Local', () => {
    const local = new Local(() => new Counter());
    expect(local instanceof Counter).toBe(true);
    expect(local.constructor).toBe(Counter);
    expect(Object.getPrototypeOf(local)).toBe(Counter.prototype);
    expect('up' in local).toBe(true);
    expect(local).toBeInstanceOf(Local);
    expect(new Local()).toBeInstanceOf(Local);
    expect(new Local()).toBeInstanceOf(Object);
    for (const other of [{}, null, undefined, 1, new Counter(), () => {}])
      expect(other).not.toBeInstanceOf(Local);
  });

  test('a class that extends Local is refused, and told what to do instead', () => {
    class Extended extends Local<Counter> {
      constructor() {
        super(() => new Counter());
      }
    }
    const refused = { name: 'TypeError', message: expect.stringContaining('new Local(() => new MyClass())') };
    const wanted = expect.objectContaining(refused);
    expect(() => new Extended()).toThrow(wanted);
    expect(() => new (class extends Local {})()).toThrow(wanted);
    expect(() => Reflect.construct(Local, [], Counter)).toThrow(wanted);
    expect(Reflect.construct(Local, [() => new Counter()])).toBeInstanceOf(Counter);
  });

  test('a method is one and the same at each read, and what it returns of itself is the Local', () => {
    const local = new Local(() => new Counter());
    expect(local.up).toBe(local.up);
    expect([local.up.name, local.up.length]).toEqual(['up', 0]);
    expect(local.up()).toBe(local);
    const other = new Counter();
    expect(local.up.call(other)).toBe(other);
    expect([other.count, local.count]).toEqual([1, 1]);
  });

  test('functions that were stored are read as they are', () => {
    const plain = () => {};
    class Stored {
      #fn = plain;
      own = plain;
      get got() {
        return this.#fn;
      }
    }
    const local = new Local(() => Object.assign(new Stored(), { Counter }));
    expect(local.own).toBe(plain);
    expect(local.got).toBe(plain);
    expect(local.Counter).toBe(Counter);
    expect(new local.Counter().count).toBe(0);
    expect(local.hasOwnProperty).toBe(Object.prototype.hasOwnProperty);
  });

  test('methods and getters of a plain object see the Local', () => {
    const local = new Local(() => ({
      n: 1,
      get double() {
        return this.n * 2;
      },
      add(by: number) {
        this.n += by;
        return this;
      },
    }));
    expect(local.add(2)).toBe(local);
    expect(local.double).toBe(6);
    expect(JSON.stringify(local)).toBe('{"n":3,"double":6}');
  });

  test('super, symbols and builtin objects with inner slots work', async () => {
    class Derived extends Counter {
      override up() {
        this.step++;
        return super.up();
      }
      *[Symbol.iterator]() {
        yield this.count;
      }
    }
    const derived = new Local(() => new Derived());
    expect(derived.up().count).toBe(2);
    expect([...derived]).toEqual([2]);
    const map = new Local(() => new Map([['a', 1]]));
    expect(map.set('b', 2)).toBe(map);
    expect([map.size, [...map]]).toEqual([
      2,
      [
        ['a', 1],
        ['b', 2],
      ],
    ]);
    expect(new Local(() => new Date(0)).toISOString()).toBe(new Date(0).toISOString());
    expect(JSON.stringify(new Local(() => new Date(0)))).toBe(JSON.stringify(new Date(0)));
    expect(await new Local(async () => ({ x: 1 }))).toEqual({ x: 1 });
    const list = new Local(() => [3, 1, 2]);
    expect(list.push(4)).toBe(4);
    expect([...list].sort()).toEqual([1, 2, 3, 4]);
  });
});

describe('no property is for ever', () => {
  test('what is defined on it can be configured, whatever the definition says of that by leaving it out', () => {
    const local = new Local<{ x?: number; y?: number }>();
    Object.defineProperty(local, 'x', { value: 1 });
    expect(Object.getOwnPropertyDescriptor(local, 'x')).toEqual({
      value: 1,
      writable: false,
      enumerable: false,
      configurable: true,
    });
    expect(local.x).toBe(1);
    expect(() => {
      local.x = 2;
    }).toThrow(TypeError);
    expect(Object.keys(local)).toEqual([]);
    expect(delete local.x).toBe(true);
    expect('x' in local).toBe(false);
    let value = 5;
    Object.defineProperty(local, 'y', { get: () => value, set: (to) => (value = to), enumerable: true });
    local.y = 6;
    expect([value, local.y, JSON.stringify(local)]).toEqual([6, 6, '{"y":6}']);
  });

  test('what asks for the opposite is refused, and changes nothing', () => {
    const local = new Local(() => ({ x: 1 }));
    const refused = [
      () => Object.defineProperty(local, 'y', { value: 1, configurable: false }),
      () => Object.freeze(local),
      () => Object.seal(local),
      () => Object.preventExtensions(local),
    ];
    for (const attempt of refused) expect(attempt).toThrow(TypeError);
    expect(Reflect.preventExtensions(local)).toBe(false);
    expect([Object.isExtensible(local), Object.isFrozen(local), Object.isSealed(local)]).toEqual([
      true,
      false,
      false,
    ]);
    local.x = 2;
    expect({ ...local }).toEqual({ x: 2 });
  });

  test('an object that is frozen itself stays so, and can be looked at', () => {
    const local = new Local<{ x: number; y?: number }>(() => Object.freeze({ x: 1 }));
    expect(() => {
      local.x = 2;
    }).toThrow(TypeError);
    expect(() => {
      local.y = 2;
    }).toThrow(TypeError);
    expect(Reflect.deleteProperty(local, 'x')).toBe(false);
    expect(Object.getOwnPropertyDescriptors(local)).toEqual({
      x: { value: 1, writable: false, enumerable: true, configurable: true },
    });
    expect([Object.keys(local), JSON.stringify(local), { ...local }]).toEqual([['x'], '{"x":1}', { x: 1 }]);
  });
});

test('it has the type of the object that init returns', () => {
  const made: { n: number } = new Local(() => ({ n: 1 }));
  const given: Local<{ n: number }> = new Local<{ n: number }>(() => made);
  const open = new Local();
  open.anything = { at: 'all' };
  // @ts-expect-error: a number
  given.n = 'one';
  // @ts-expect-error: not in it
  given.m = 1;
  expect([made.n, open.anything.at]).toEqual(['one', 'all']);
});

describe('who sees what', () => {
  test('each thread and process sees what it has set itself', async () => {
    const actors = await startActors(ACTOR_KINDS.concat(ACTOR_KINDS), { namespace: testNamespace() });
    const local = new Local(() => ({ made: 0, x: 'of the test' }));
    for (const [index, actor] of actors.entries()) {
      await actor.run(
        `const init = () => ({ made: ++globalThis.made });
         globalThis.made = 0;
         globalThis.local = new proclock.Local(init);
         local.x = args;`,
        index,
      );
    }
    for (const [index, actor] of actors.entries()) {
      expect(await actor.run('return { ...local }')).toEqual({ made: 1, x: index });
    }
    expect(local.x).toBe('of the test');
  });

  test('it begins anew when the count of forks changes, and not when the count moves into other memory', () => {
    let made = 0;
    const local = new Local<{ made: number; x?: number }>(() => ({ made: ++made }));
    const map = new Local(() => new Map<string, number>());
    local.x = 1;
    map.set('a', 1);
    const get = map.get;
    const count = new Int32Array(1);
    const before = currentEpoch();
    followForks(count);
    expect(currentEpoch()).toBe(before);
    expect({ ...local }).toEqual({ made: 1, x: 1 });
    count[0]!++;
    expect({ ...local }).toEqual({ made: 2 });
    local.x = 3;
    expect(local.x).toBe(3);
    expect(get.call(map, 'a')).toBeUndefined();
    expect(map.size).toBe(0);
  });

  test('in the child of a raw fork() it is empty again, once the native part is loaded; its parent keeps its own', () => {
    const library = join(folder, 'raw-fork.so');
    execFileSync('cc', ['-shared', '-fPIC', '-o', library, join(__dirname, 'support/raw-fork.c')]);
    const namespace = testNamespace();
    const program = `
      const { readlinkSync, writeSync } = require('node:fs');
      const { Local, SharedLock } = require(${JSON.stringify(DIST)});
      const pid = () => Number(readlinkSync('/proc/self'));
      const local = new Local(() => ({ madeBy: pid() }));
      local.x = 1;
      if (process.argv[1] === 'lock') new SharedLock('x', { namespace: '${namespace}' }).close();
      try {
        process.dlopen({ exports: {} }, ${JSON.stringify(library)});
      } catch {} // no addon
      const child = pid() !== process.pid; // which was found out when the process started
      const seen = { child, x: local.x, keys: Object.keys(local), mine: local.madeBy === pid() };
      local.x = 2;
      writeSync(1, JSON.stringify({ ...seen, after: local.x }) + '\\n');
      // What it would do at its end, it would do with threads that it does not have.
      if (child) process.kill(pid(), 'SIGKILL');
    `;
    // Without other threads, which a child does not have. The output ends when both have ended.
    const fork = (how: string) =>
      run(['--single-threaded', '-e', program, how])
        .trim()
        .split('\n')
        .map((line) => JSON.parse(line))
        .sort((a, b) => Number(a.child) - Number(b.child));
    expect(segmentFiles(namespace)).toHaveLength(0);
    const keys = ['madeBy', 'x'];
    const parent = { child: false, x: 1, keys, mine: true, after: 2 };
    expect(fork('lock')).toEqual([parent, { child: true, keys: ['madeBy'], mine: true, after: 2 }]);
    // Nobody tells it.
    expect(fork('no lock')).toEqual([parent, { child: true, x: 1, keys, mine: false, after: 2 }]);
  });

  test('starting other programs changes nothing', () => {
    const program = `
      const { execFileSync } = require('node:child_process');
      const { Local, SharedLock } = require(${JSON.stringify(DIST)});
      const local = new Local();
      const lock = new SharedLock('x', { namespace: '${testNamespace()}' });
      local.x = 1;
      execFileSync('true');
      execFileSync(process.execPath, ['-e', '']);
      console.log(local.x);
    `;
    expect(run(['-e', program])).toBe('1\n');
  });

  test('in a program that is started from a V8 startup snapshot it is empty again, and init runs again', () => {
    const entry = join(folder, 'entry.js');
    const blob = join(folder, 'snapshot.blob');
    const main = `
      const { Local } = bundled;
      const { startupSnapshot } = require('node:v8');
      class Counter {
        #count = 0;
        up() { return ++this.#count; }
      }
      let runs = 0;
      const local = new Local(() => ({ run: ++runs }));
      const counter = new Local(() => new Counter());
      const bare = new Local();
      const untouched = new Local(() => ({ fresh: true }));
      local.x = bare.x = 1;
      counter.up();
      const seen = () => JSON.stringify({
        local, again: local.run, runs, count: counter.up(), bare, isLocal: local instanceof Local,
      });
      process.stdout.write(seen());
      startupSnapshot.setDeserializeMainFunction(() => {
        process.stdout.write(seen());
        process.stdout.write(JSON.stringify(untouched));
      });
    `;
    writeFileSync(entry, bundle(DIST, 'local', main));
    const building = { local: { run: 1, x: 1 }, again: 1, runs: 1, count: 2, bare: { x: 1 }, isLocal: true };
    expect(JSON.parse(run(['--snapshot-blob', blob, '--build-snapshot', entry]))).toEqual(building);
    const started = { local: { run: 2 }, again: 2, runs: 2, count: 1, bare: {}, isLocal: true };
    for (let i = 0; i < 2; i++) {
      expect(run(['--snapshot-blob', blob])).toBe(JSON.stringify(started) + JSON.stringify({ fresh: true }));
    }
  });
});

describe('proclock/local alone', () => {
  const seen = `{
    x: local.x,
    modules: Object.keys(require.cache).filter((file) => /node-gyp-build|binding|[.]node$/.test(file)),
    libraries: process.report.getReport().sharedObjects.filter((file) => file.endsWith('.node')),
  }`;
  const nothing = { x: 1, modules: [], libraries: [] };

  test('loads no native code, and is the same Local as that of proclock', () => {
    const required = `
      const { Local } = require('proclock/local');
      const local = new Local();
      local.x = 1;
      console.log(JSON.stringify(${seen}));
    `;
    expect(JSON.parse(run(['-e', required]))).toEqual(nothing);
    const imported = `
      import { createRequire } from 'node:module';
      import { Local } from 'proclock/local';
      import { Local as ofIndex } from 'proclock';
      const require = createRequire(import.meta.url);
      console.log(Local === ofIndex && Local === require('proclock/local').Local && Local === require('proclock').Local);
    `;
    expect(run(['--input-type=module', '-e', imported])).toBe('true\n');
  });

  test('works in a package without a native part and without dependencies', () => {
    const copy = join(folder, 'node_modules/proclock');
    mkdirSync(copy, { recursive: true });
    for (const part of ['dist', 'package.json'])
      cpSync(join(ROOT, part), join(copy, part), { recursive: true });
    const script = `
      const { Local } = require('proclock/local');
      const local = new Local(() => ({ x: 1 }));
      console.log(JSON.stringify(${seen}));
    `;
    expect(JSON.parse(run(['-e', script], folder))).toEqual(nothing);
    const imported = `import { Local } from 'proclock/local'; console.log(new Local(() => ({ x: 1 })).x);`;
    writeFileSync(join(folder, 'main.mjs'), imported);
    expect(run(['main.mjs'], folder)).toBe('1\n');
  });
});
