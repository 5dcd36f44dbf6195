// Fencing a write to a store. A process sends a write and is killed. The lock goes to the next one at once, but the write is
// still on its way, and arrives late. No lock can call it back. The store can refuse it: each write carries the token of
// the guard that it was made under, and the store takes none with a token smaller than the greatest it has seen.
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { Lock } from 'proclock';

class Store {
  value = '';
  #greatest = 0n;

  write(token, value) {
    const ok = token >= this.#greatest;
    if (ok) [this.#greatest, this.value] = [token, value];
    console.log(`store: ${JSON.stringify(value)} ${ok ? 'written' : 'refused, its token is too old'}`);
    return ok;
  }
}

if (process.argv[2] === undefined) {
  const store = new Store();
  const start = (value) => fork(fileURLToPath(import.meta.url), [value], { serialization: 'advanced' });

  const first = start('by the first');
  const [late] = await once(first, 'message'); // on its way: the store does not have it yet
  const second = start('by the second'); // waits for the lock
  first.kill('SIGKILL');
  const [prompt] = await once(second, 'message');

  const written = store.write(prompt.token, prompt.value);
  const refused = !store.write(late.token, late.value);
  console.log(`the store has ${JSON.stringify(store.value)}`);
  second.kill('SIGKILL');
  process.exitCode = written && refused && store.value === 'by the second' ? 0 : 1;
} else {
  await new Lock('store').acquire(async ({ token }) => {
    process.send({ token, value: process.argv[2] });
    await once(process, 'message'); // the answer of the store
  });
}
