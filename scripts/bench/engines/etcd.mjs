// etcd for the benchmark of engines: a member of our own, and what its users do without proclock.
import { createRequire } from 'node:module';
import { servers } from '../../servers.mjs';

const require = createRequire(import.meta.url);

/** As users have it: what is written is on the disk. `undefined` where none can be had. */
export const start = () => servers.etcd();

/** The dead are missed after that: the shortest that etcd grants. */
export const ttlMs = 2000;
/** For each wait, etcd looks at all of the queue. */
export const waitsMax = 1000;

/** A space, for which the process has to be kept alive. */
export async function open(target, options) {
  const { connect } = require('../../../dist/etcd');
  return connect(target, options);
}

/** What its watchers were told of so far. */
export const told = {
  name: 'watch events',
  async count(target) {
    const text = await (await fetch(`${target}/metrics`)).text();
    return Number(/^etcd_debugging_mvcc_events_total (.*)$/m.exec(text)[1]);
  },
};

const LEASE_S = 600;

/** A connection, by the package that proclock uses: `ask` calls a method of lib/engines/etcd/messages, or of that form. */
function client(target) {
  const { newClient, newMetadata } = require('../../../dist/engines/etcd/client');
  const made = newClient({ address: target.replace('http://', ''), secure: false }, {});
  // Its sockets keep no process alive.
  const alive = setInterval(() => {}, 2 ** 30);
  const call = (start, { path, serialize, deserialize }, ...rest) =>
    made[start](path, serialize, deserialize, ...rest);
  return {
    ask: (method, question) =>
      new Promise((resolve, reject) => {
        call('makeUnaryRequest', method, question, newMetadata({}), {}, (error, answer) =>
          error ? reject(error) : resolve(answer),
        );
      }),
    stream: (method) => call('makeBidiStreamRequest', method, newMetadata({}), {}),
    close() {
      clearInterval(alive);
      made.close();
    },
  };
}

const messages = () => require('../../../dist/engines/etcd/messages');
const put = (one, key) =>
  one.ask(messages().txn, {
    compare: [],
    success: [{ put: { key: Buffer.from(key), value: Buffer.from('x') } }],
    failure: [],
  });

/** What a pair is measured against, and is no lock. */
export const bare = {
  'two bare puts': async (target) => {
    const one = client(target);
    return { acquire: () => put(one, 'bare'), release: () => put(one, 'bare'), close: () => one.close() };
  },
};

/** Of etcd's service for locks. */
function lockMethods() {
  const { decode, encode } = require('../../../dist/engines/etcd/protobuf');
  const method = (path, question, answer) => ({
    path: `/v3lockpb.Lock/${path}`,
    serialize: (message) => encode(question, message),
    deserialize: (bytes) => decode(answer, bytes),
  });
  return {
    lock: method('Lock', { name: [1, 'bytes'], lease: [2, 'id'] }, { key: [2, 'bytes'] }),
    unlock: method('Unlock', { key: [1, 'bytes'] }, {}),
  };
}

/** Each makes `{ acquire, release, close }` over one connection. */
export const peers = {
  "etcd's own lock": async (target) => {
    const one = client(target);
    const { lock, unlock } = lockMethods();
    // For as long as the benchmark needs it, without a keep-alive.
    const id = BigInt(Date.now()) * 1000n + BigInt(process.pid % 1000);
    await one.ask(messages().leaseGrant, { ttl: LEASE_S, id });
    const name = Buffer.from('own');
    let key;
    return {
      async acquire() {
        ({ key } = await one.ask(lock, { name, lease: id }));
      },
      release: () => one.ask(unlock, { key }),
      async close() {
        await one.ask(messages().leaseRevoke, { id });
        one.close();
      },
    };
  },
};

/** The quickest way from one process to another: what a hand-over is measured against. */
export const hop = {
  name: 'a put, watched',
  async listen(target, heard) {
    const one = client(target);
    const stream = one.stream(messages().watch);
    const created = new Promise((resolve) => {
      stream.on('data', (answer) => {
        if (answer.created) resolve();
        else if (answer.events.length > 0) heard();
      });
    });
    stream.on('error', () => {}); // when it is closed
    stream.write({ create: { key: Buffer.from('hop'), startRevision: 0, filters: [], watchId: 1 } });
    await created;
    return () => one.close();
  },
  async sender(target) {
    const one = client(target);
    return { send: () => put(one, 'hop'), close: () => one.close() };
  },
};
