// Web Locks, the request() method: its arguments, in the order in which the specification looks at them. Whatever is wrong,
// it is a rejection; it never throws, and leaves nothing behind.
import type { LockManager } from '../lib';
import { type Agent, conforms, name, takeTurns } from './support/web-locks';

interface Outcome {
  threw: boolean;
  /** What the promise rejected with. */
  name?: string;
  code?: unknown;
  message?: string;
  dom?: boolean;
  value?: unknown;
}

/** Calls `manager.request(...args)` in the agent, with the arguments that the expression makes. */
function outcomeOf(agent: Agent, expression: string): Promise<Outcome> {
  return agent.inside(async ({ manager, args }) => {
    const given = new Function('ran', `return [${args}]`)(() => 'ran') as Parameters<LockManager['request']>;
    let promise: Promise<unknown>;
    try {
      promise = manager.request(...given);
    } catch (error) {
      return { threw: true, message: String(error) };
    }
    try {
      return { threw: false, value: await promise };
    } catch (error) {
      if (!(error instanceof Error)) return { threw: false, value: error };
      const { name, message, code } = error as Error & { code?: unknown };
      return { threw: false, name, message, code, dom: error instanceof DOMException };
    }
  }, expression);
}

const typeError = (code: string) => ({ threw: false, name: 'TypeError', code, dom: false });
const notSupported = { threw: false, name: 'NotSupportedError', dom: true };

/** The lock is free, and held: that makes no difference. */
async function expectRejections(
  agent: Agent,
  expressions: readonly string[],
  expected: object,
): Promise<void> {
  const holder = await agent.hold();
  for (const expression of expressions) {
    expect([expression, await outcomeOf(agent, expression)]).toEqual([
      expression,
      expect.objectContaining(expected),
    ]);
  }
  await holder.finish();
  for (const expression of expressions)
    expect(await outcomeOf(agent, expression)).toEqual(expect.objectContaining(expected));
}

describe('conversions', () => {
  conforms('a missing callback, or one that is no function, is a TypeError', 1, async (_, agent) => {
    const none = [
      '',
      "'ledger'",
      "'ledger', undefined",
      "'ledger', {}",
      "'ledger', {}, undefined",
      "'ledger', ran, undefined",
    ];
    const wrong = [
      "'ledger', 'callback'",
      "'ledger', {}, {}",
      "'ledger', {}, null",
      "'ledger', { mode: 'shared' }",
    ];
    await expectRejections(agent!, [...none, ...wrong], typeError('ERR_INVALID_ARG_TYPE'));
  });

  conforms('a name that is a Symbol is a TypeError', 1, async (_, agent) => {
    const names = ['Symbol()', 'Symbol.iterator'];
    await expectRejections(
      agent!,
      names.map((one) => `${one}, ran`),
      typeError('ERR_INVALID_ARG_TYPE'),
    );
  });

  conforms('what the conversion of a name throws is what the promise rejects with', 1, async (_, agent) => {
    const thrower = "{ toString() { throw new RangeError('no name') } }, ran";
    await expectRejections(agent!, [thrower], { name: 'RangeError', message: 'no name' });
  });

  conforms('options that are no object are a TypeError; null and undefined are none', 1, async (_, agent) => {
    const wrong = ['1', "'shared'", 'true', 'Symbol()'];
    await expectRejections(
      agent!,
      wrong.map((options) => `'ledger', ${options}, ran`),
      typeError('ERR_INVALID_ARG_TYPE'),
    );
    for (const options of ['null', 'undefined', '{}', 'Object.create(null)', '[]'])
      expect(await outcomeOf(agent!, `'ledger', ${options}, ran`)).toEqual({ threw: false, value: 'ran' });
  });

  conforms('options and mode are converted as Web IDL says', 1, async (_, agent) => {
    const modes = await agent!.inside(async ({ manager }) => {
      const options = Object.assign(() => {}, { mode: 'shared' as const });
      const odd = { toString: () => 'shared' } as unknown as 'shared';
      const modeOf = (lock: { mode: string }) => lock.mode;
      return [
        await manager.request('ledger', options, modeOf),
        await manager.request('ledger', { mode: odd }, modeOf),
        await manager.request('ledger', { mode: new String('shared') as 'shared' }, modeOf),
        manager.request.length,
      ];
    });
    expect(modes).toEqual(['shared', 'shared', 'shared', 2]);
  });

  conforms('a mode that is none is a TypeError', 1, async (_, agent) => {
    const modes = ["'EXCLUSIVE'", "'write'", "''", 'null', '0', '{}'];
    await expectRejections(
      agent!,
      modes.map((mode) => `'ledger', { mode: ${mode} }, ran`),
      typeError('ERR_INVALID_ARG_VALUE'),
    );
  });

  conforms('a signal that is none is a TypeError', 1, async (_, agent) => {
    const signals = ["'signal'", 'null', '1', '{}', 'new AbortController()', 'new EventTarget()'];
    await expectRejections(
      agent!,
      signals.map((signal) => `'ledger', { signal: ${signal} }, ran`),
      typeError('ERR_INVALID_ARG_TYPE'),
    );
  });

  conforms('what a getter of the options throws is what the promise rejects with', 1, async (_, agent) => {
    await expectRejections(agent!, ["'ledger', { get mode() { throw new RangeError('mine') } }, ran"], {
      name: 'RangeError',
      message: 'mine',
    });
  });

  conforms('options are read once, in alphabetical order', 1, async (_, agent) => {
    const read = await agent!.inside(async ({ manager }) => {
      const seen: unknown[] = [];
      const options = new Proxy(
        {},
        {
          get(_target, key) {
            seen.push(key);
            return undefined;
          },
        },
      );
      await manager.request('ledger', options, () => {});
      return seen;
    });
    expect(read).toEqual(['ifAvailable', 'mode', 'signal', 'steal']);
  });

  conforms('undefined options are the defaults, and flags are converted to booleans', 1, async (_, agent) => {
    const optional = 'mode: undefined, ifAvailable: undefined, steal: undefined, signal: undefined';
    for (const options of [optional, 'ifAvailable: 0, steal: null', "steal: '', mode: 'shared'"])
      expect(await outcomeOf(agent!, `'ledger', { ${options} }, ran`)).toEqual({
        threw: false,
        value: 'ran',
      });
    await expectRejections(agent!, ["'ledger', { steal: 1, ifAvailable: 'yes' }, ran"], notSupported);
  });

  conforms('request() and query() of something else reject as well', 1, async (_, agent) => {
    const names = await agent!.inside(async ({ manager }) => {
      const nameOf = (error: unknown) => (error as Error).name;
      const { request, query } = manager;
      return Promise.all([
        request('ledger', () => 'ran').catch(nameOf),
        request.call({} as typeof manager, 'ledger', {}, () => 'ran').catch(nameOf),
        query().catch(nameOf),
      ]);
    });
    expect(names).toEqual(['TypeError', 'TypeError', 'TypeError']);
  });
});

describe('what is not supported', () => {
  conforms('names that begin with a hyphen', 1, async (_, agent) => {
    const names = ["'-'", "'-ledger'", "'--'", '-1', "'-\\0'", "['-x']"];
    await expectRejections(
      agent!,
      names.map((one) => `${one}, ran`),
      notSupported,
    );
    await expectRejections(agent!, ["'-ledger', { mode: 'shared', ifAvailable: true }, ran"], notSupported);
    for (const fine of ["'a-'", "' -'", "'\\u2212'", "'\\u2010'"])
      expect(await outcomeOf(agent!, `${fine}, ran`)).toEqual({ threw: false, value: 'ran' });
  });

  conforms('steal together with ifAvailable, with shared mode, with a signal', 1, async (_, agent) => {
    const signal = 'signal: new AbortController().signal';
    const options = [
      'steal: true, ifAvailable: true',
      "steal: true, mode: 'shared'",
      `steal: true, ${signal}`,
      `ifAvailable: true, ${signal}`,
      `steal: true, ifAvailable: true, mode: 'shared', ${signal}`,
    ];
    await expectRejections(
      agent!,
      options.map((one) => `'ledger', { ${one} }, ran`),
      notSupported,
    );
  });

  conforms('steals nothing when it is refused', 2, async (test, a, b) => {
    const holder = await a!.hold();
    const refused = await b!.request({ steal: true, mode: 'shared' });
    await expect(refused.outcome).rejects.toMatchObject({ name: 'NotSupportedError' });
    expect(await refused.called).toBeNull();
    await test.expectState([holder]);
    await holder.finish();
  });

  conforms(
    'wrong types come first, then what is not supported, then an aborted signal',
    1,
    async (_, agent) => {
      const aborted = "signal: AbortSignal.abort(new RangeError('over'))";
      await expectRejections(agent!, ["'-x', { mode: 'write' }, ran"], typeError('ERR_INVALID_ARG_VALUE'));
      await expectRejections(agent!, ["'-x', { signal: 1 }, ran", "'-x'"], typeError('ERR_INVALID_ARG_TYPE'));
      await expectRejections(
        agent!,
        [
          `'-x', { ${aborted} }, ran`,
          `'x', { steal: true, ${aborted} }, ran`,
          `'x', { ifAvailable: true, ${aborted} }, ran`,
        ],
        notSupported,
      );
      await expectRejections(agent!, [`'ledger', { ${aborted} }, ran`], {
        name: 'RangeError',
        message: 'over',
      });
    },
  );
});

describe('names', () => {
  /** What a callback is given as the name, and what query() shows while it runs. */
  const seenNames = (agent: Agent, expressions: readonly string[]) =>
    agent.inside(
      ({ manager, args }) =>
        Promise.all(
          args.map((expression) => {
            const name = new Function(`return ${expression}`)();
            return manager.request(name, async (lock) => {
              const { held } = await manager.query();
              return [lock.name === `${name}`, held.some((info) => info.name === lock.name)];
            });
          }),
        ),
      [...expressions],
    );

  conforms('any string is a name', 1, async (_, agent) => {
    const names = [
      "''",
      "'\\0'",
      "'a\\0b'",
      "'a'",
      "'😀'",
      "'\\ud83d'",
      "'\\ude00'",
      "'\\ufffd'",
      "'/etc/passwd'",
      "'x'.repeat(10000)",
    ];
    expect(await seenNames(agent!, names)).toEqual(names.map(() => [true, true]));
  });

  conforms('what is no string is converted to one', 1, async (_, agent) => {
    const names = ['1', 'null', 'undefined', 'true', '{}', '[1, 2]', '10n', "{ toString: () => 'made' }"];
    expect(await seenNames(agent!, names)).toEqual(names.map(() => [true, true]));
  });

  conforms(
    'names that differ are different locks, however little; equal ones are one',
    2,
    async (test, a, b) => {
      const names = [
        '',
        '\0',
        'a',
        'a\0',
        'a\0b',
        'A',
        'é',
        'e\u0301',
        '😀',
        '\ud83d',
        '\ude00',
        '\ufffd',
        'undefined',
      ];
      const holds = [];
      for (const each of names) holds.push(await a!.hold({ name: each }));
      const waits = [];
      for (const each of names) waits.push(await b!.request({ name: each }));
      expect(waits.some(({ settled }) => settled)).toBe(false);
      expect((await test.manager.query()).pending).toHaveLength(names.length);
      for (const hold of holds) await hold.finish();
      await takeTurns(...waits);
    },
  );

  conforms('a converted name is the lock of that string', 2, async (_, a, b) => {
    for (const [value, text] of [
      [1, '1'],
      [null, 'null'],
      [{}, '[object Object]'],
    ]) {
      const holder = await a!.hold({ name: text as string });
      const got = await b!.inside(
        ({ manager, args }) => manager.request(args as string, { ifAvailable: true }, (lock) => lock),
        value,
      );
      expect(got).toBeNull();
      await holder.finish();
    }
    void name;
  });
});
