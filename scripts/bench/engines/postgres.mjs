// PostgreSQL for the benchmark of engines: a server of our own, and what its users do without proclock.
import { createRequire } from 'node:module';
import { servers } from '../../servers.mjs';

const require = createRequire(import.meta.url);

/** As users have it: what is committed is on the disk. `undefined` where none can be had. */
export async function start() {
  const started = await servers.postgres({ fsync: 'on', full_page_writes: 'on' });
  await started?.server.sql('create table polled (name text primary key)');
  return started;
}

/** A space, for which the process has to be kept alive. */
export async function open(target, options) {
  const { connect } = require('../../../dist/postgres');
  return connect(target, options);
}

const client = async (target) => {
  const { Client } = require('pg');
  const made = new Client(target);
  await made.connect();
  return made;
};

const POLL_MS = 50;

/** Each makes `{ acquire, release, close }` over one connection. */
export const peers = {
  'bare pg_advisory_lock': async (target) => {
    const made = await client(target);
    const ask = (name, verb) => made.query({ name, text: `select ${verb}($1)`, values: [1] });
    return {
      acquire: () => ask('lock', 'pg_advisory_lock'),
      release: () => ask('unlock', 'pg_advisory_unlock'),
      close: () => made.end(),
    };
  },
  [`a table, polled each ${POLL_MS} ms`]: async (target) => {
    const made = await client(target);
    await made.query('set synchronous_commit = off');
    const insert = {
      name: 'insert',
      text: 'insert into polled values ($1) on conflict do nothing',
      values: ['x'],
    };
    return {
      async acquire() {
        while ((await made.query(insert)).rowCount === 0) {
          await new Promise((resolve) => setTimeout(resolve, POLL_MS));
        }
      },
      release: () =>
        made.query({ name: 'delete', text: 'delete from polled where name = $1', values: ['x'] }),
      close: () => made.end(),
    };
  },
};

/** The quickest way from one process to another: what a hand-over is measured against. */
export const hop = {
  name: 'a NOTIFY',
  async listen(target, told) {
    const made = await client(target);
    made.on('notification', told);
    await made.query('listen hop');
    return () => made.end();
  },
  async sender(target) {
    const made = await client(target);
    return { send: () => made.query('notify hop'), close: () => made.end() };
  },
};
