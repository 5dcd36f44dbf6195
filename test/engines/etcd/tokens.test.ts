// A token may end at any moment, and who is asked for another one at that moment gets one; a watch goes on with it.
import { Client, type Metadata } from '@grpc/grpc-js';
import { LockError } from '../../../lib/common/errors';
import { checkSettings } from '../../../lib/engines/etcd/config';
import { Status } from '../../../lib/engines/etcd/errors';
import { authenticate, txn, type WatchRequest, type WatchResponse } from '../../../lib/engines/etcd/messages';
import { only, toRequest } from '../../../lib/engines/etcd/txn';
import { Watcher } from '../../../lib/engines/etcd/watcher';
import { Wire } from '../../../lib/engines/etcd/wire';
import { until } from '../../support/until';

/** Of etcd, for all who are asked for theirs. */
function unknownToken(): Error {
  const details = 'etcdserver: invalid auth token';
  return Object.assign(new Error(details), { code: Status.UNAUTHENTICATED, details });
}

describe('a call', () => {
  const read = toRequest({ as: 'read', when: [], does: [{ as: 'key', get: only('key') }] });
  const settings = checkSettings('127.0.0.1:1', { auth: { username: 'worker', password: 'secret' } });
  let wire: Wire;
  /** What calls were made with. */
  let tokens: unknown[];
  let logins: number;

  /** An etcd that knows a token if this says so. */
  function begin(isKnown: (token: string) => boolean): void {
    wire = new Wire(settings, 0);
    tokens = [];
    logins = 0;
    jest.spyOn(Client.prototype, 'makeUnaryRequest').mockImplementation(((...args: unknown[]) => {
      const [path, , , , metadata] = args as [string, unknown, unknown, unknown, Metadata];
      const answered = args.pop() as (error: Error | null, answer?: object) => void;
      if (path === authenticate.path) {
        const token = `token ${++logins}`;
        setImmediate(() => answered(null, { token }));
        return { cancel() {} };
      }
      const [token] = metadata.get('token') as string[];
      tokens.push(token);
      setImmediate(() => (isKnown(token as string) ? answered(null, {}) : answered(unknownToken())));
      return { cancel() {} };
    }) as never);
  }

  afterEach(() => {
    jest.restoreAllMocks();
    wire.close(new LockError('ERR_LOCK_CLOSED', 'the test is over'));
  });

  test('has one, also where that is forgotten while another one is on its way', async () => {
    begin((token) => token !== 'token 1');
    const forgetting = setInterval(() => wire.forgetToken(), 0);
    const forgetsNow = () => {
      wire.forgetToken();
      if (tokens.length < 8) setImmediate(forgetsNow);
    };
    forgetsNow();
    for (let i = 0; i < 4; i++) await wire.call('read', txn, read);
    await Promise.all(Array.from({ length: 4 }, () => wire.call('read', txn, read)));
    clearInterval(forgetting);
    expect(tokens).not.toContain(undefined);
  });

  test('is made again with one token after another, if they are old when they arrive', async () => {
    begin((token) => token === 'token 4');
    await wire.call('read', txn, read);
    expect(tokens).toEqual(['token 1', 'token 2', 'token 3', 'token 4']);
  });

  test('is refused if etcd knows none of them', async () => {
    begin(() => false);
    await expect(wire.call('read', txn, read)).rejects.toMatchObject({ code: 'ERR_LOCK_PERMISSION' });
    expect(logins).toBeLessThan(10);
  });
});

describe('a watch that is refused', () => {
  const keys = only('key');

  /** @param mayRead what a read of the keys comes to @param refusals how many watches are refused */
  function watch(mayRead: () => Promise<unknown>, refusals: number) {
    const seen: string[] = [];
    const read = jest.fn(mayRead);
    const wire = {
      pause: () => Promise.resolve(),
      forgetToken: () => seen.push('forgotten'),
      call: read,
      async stream(_what: string, _method: unknown, on: { data(answer: WatchResponse): void }) {
        return {
          cancel() {},
          write({ create }: WatchRequest) {
            const { watchId } = create as { watchId: number };
            const canceled = refusals-- > 0;
            const answer = { watchId, created: true, canceled, compactRevision: 0, events: [] };
            setImmediate(() => on.data(answer as unknown as WatchResponse));
          },
        };
      },
    };
    const watcher = new Watcher(wire as unknown as Wire);
    watcher.watch(keys, false, {
      begun: () => seen.push('begun'),
      happened() {},
      missed: (why) => {
        seen.push(`missed: ${(why as LockError).code}`);
        watcher.close();
      },
    });
    return { seen, read };
  }

  test('goes on with other tokens, as often as it takes, if the keys may be read', async () => {
    const { seen, read } = watch(() => Promise.resolve({}), 3);
    await until(() => seen.includes('begun'));
    expect(seen).toEqual(['forgotten', 'forgotten', 'forgotten', 'begun']);
    expect(read).toHaveBeenCalledTimes(3);
  });

  test('goes on when it is known whether the keys may be read', async () => {
    let asked = 0;
    const unavailable = new LockError('ERR_LOCK_UNAVAILABLE', 'not now');
    const { seen } = watch(() => (++asked < 3 ? Promise.reject(unavailable) : Promise.resolve({})), 1);
    await until(() => seen.includes('begun'));
    expect(asked).toBe(3);
  });

  test('is over if they may not', async () => {
    const refusal = new LockError('ERR_LOCK_PERMISSION', 'permission denied');
    const { seen } = watch(() => Promise.reject(refusal), 1);
    await until(() => seen.length > 1);
    expect(seen).toEqual(['forgotten', 'missed: ERR_LOCK_PERMISSION']);
  });
});
