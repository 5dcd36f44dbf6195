// What an access to a Local costs: against the same access to a plain object, and to a proxy that does nothing, which is
// what cannot be beaten by anything that has to look before it answers.
import { createRequire } from 'node:module';
import { perCall } from './measure.mjs';

const require = createRequire(import.meta.url);
const { Local } = require('../../dist/local.js');

class Counter {
  #count = 0;
  get count() {
    return this.#count;
  }
  up() {
    return ++this.#count;
  }
}

const make = () => ({ x: 1, y: 2 });

export function run({ quick }) {
  const plain = make();
  const proxy = new Proxy(make(), {});
  const local = new Local(make);
  const counter = new Counter();
  const localCounter = new Local(() => new Counter());
  let i = 0;
  const functions = {
    'read: plain object': () => plain.x,
    'read: proxy without traps': () => proxy.x,
    'read: Local': () => local.x,
    'getter: plain object': () => counter.count,
    'getter: Local': () => localCounter.count,
    'method: plain object': () => counter.up(),
    'method: Local': () => localCounter.up(),
    'write: plain object': () => (plain.y = i++),
    'write: proxy without traps': () => (proxy.y = i++),
    'write: Local': () => (local.y = i++),
    "'x' in: Local": () => 'x' in local,
  };
  return perCall(functions, quick ? 5 : 25);
}
