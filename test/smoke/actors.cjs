'use strict';
// The parent's side of actor.cjs, and how its tests are run.
const assert = require('node:assert');
const { fork, spawn } = require('node:child_process');
const { readdirSync, rmSync } = require('node:fs');
const { join } = require('node:path');
const folder = require('./folder.cjs');

const children = new Set();

/** `command`: how to start it, where the runtime's own executable is not enough (an emulator) or not meant. */
class Actor {
  constructor(namespace, { command, env = process.env }) {
    const script = join(__dirname, 'actor.cjs');
    const stdio = ['ignore', 'inherit', 'inherit', 'ipc'];
    this.child = command
      ? spawn(command[0], [...command.slice(1), script, namespace], { stdio, env, serialization: 'json' })
      : fork(script, [namespace], { stdio, env });
    children.add(this.child);
    this.replies = [];
    this.waiting = null;
    this.ended = new Promise((resolve) => {
      this.child.once('exit', (code, signal) => {
        children.delete(this.child);
        this.receive({ error: `pid ${this.child.pid} ended: ${signal ?? code}` });
        resolve(signal ?? code);
      });
    });
    this.child.on('message', (reply) => this.receive(reply));
  }

  static async start(namespace, options) {
    const actor = new Actor(namespace, options);
    await actor.reply();
    return actor;
  }

  get pid() {
    return this.child.pid;
  }

  receive(reply) {
    if (this.waiting) this.waiting(reply);
    else this.replies.push(reply);
    this.waiting = null;
  }

  async reply() {
    const reply = this.replies.shift() ?? (await new Promise((resolve) => (this.waiting = resolve)));
    if (reply.error) throw Object.assign(new Error(reply.error), { code: reply.code });
    return reply.result;
  }

  do(step, argument = null) {
    this.child.send([step, argument]);
    return this.reply();
  }

  /** Lets it end by itself. */
  async end() {
    this.child.disconnect();
    assert.strictEqual(await this.ended, 0);
  }

  /** Ends it without its doing: nothing of what it has to do at its end is done. */
  async kill() {
    this.child.kill('SIGKILL');
    assert.strictEqual(await this.ended, 'SIGKILL');
  }
}

/**
 * Runs them one after the other, and ends the process; what is left of this namespace, and of those whose names begin with
 * its own, is removed. The last line is "N passed, N failed".
 */
async function runAll(tests, namespace) {
  const segment = `proclock-${process.geteuid()}-${namespace}`;
  const watchdog = setTimeout(() => finish('the watchdog ended it'), 600_000);
  let passed = 0;
  let failed = 0;
  let running = '';
  for (const [name, test] of Object.entries(tests)) {
    running = name;
    try {
      await test();
      passed++;
      console.log(`ok   ${name}`);
    } catch (error) {
      failed++;
      console.log(`FAIL ${name}\n${error.stack}`);
    }
  }
  clearTimeout(watchdog);
  finish();

  function finish(reason) {
    if (reason) {
      failed++;
      console.log(`FAIL ${running}: ${reason}`);
    }
    for (const child of children) child.kill('SIGKILL');
    const files = readdirSync(folder).filter((name) => name.startsWith(segment));
    for (const name of files) rmSync(join(folder, name), { force: true });
    console.log(`${passed} passed, ${failed} failed`);
    process.exit(failed === 0 ? 0 : 1);
  }
}

module.exports = { Actor, folder, runAll };
