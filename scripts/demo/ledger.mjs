// A ledger that is easily torn: every entry moves an amount between two accounts, and is written in two halves.
//
// An entry is a line of fixed length:
//
//     seq      fencing token        writer  account and debit  account and credit
//     00000042 01794567890123456789 03      02 -000137         05 +000137
//     \____________________________________________________/ \__________________/
//                         first half                              second half
//
// After the first half the balances do not sum to zero, and the next entry would start in the middle of a line. Nothing
// but the lock keeps the others from seeing that.
import { open } from 'node:fs/promises';

const ACCOUNTS = 8;
const AMOUNT_MAX = 1000;
const LINE = /^(\d{8}) (\d{20}) (\d\d) (\d\d) -(\d{6}) (\d\d) \+(\d{6})$/;
const LINE_BYTES = 8 + 1 + 20 + 1 + 2 + 1 + 2 + 1 + 7 + 1 + 2 + 1 + 7 + 1;

const digits = (value, width) => String(value).padStart(width, '0');
const random = (below) => Math.floor(Math.random() * below);

export class Ledger {
  #file;

  static async open(path) {
    const ledger = new Ledger();
    ledger.#file = await open(path, 'r+');
    return ledger;
  }

  /** How many bytes there are behind the last whole entry. */
  async tornBytes() {
    return (await this.#file.stat()).size % LINE_BYTES;
  }

  /** Appends a random transfer. To be called under an exclusive lock; `betweenHalves` is when it must not die. */
  async append(writer, token, betweenHalves) {
    const { size } = await this.#file.stat();
    const from = random(ACCOUNTS);
    const to = (from + 1 + random(ACCOUNTS - 1)) % ACCOUNTS;
    const amount = digits(1 + random(AMOUNT_MAX), 6);
    const seq = digits(size / LINE_BYTES + 1, 8);
    const debit = `${seq} ${digits(token, 20)} ${digits(writer, 2)} ${digits(from, 2)} -${amount}`;
    const credit = ` ${digits(to, 2)} +${amount}\n`;
    await this.#file.write(debit, size);
    await betweenHalves();
    await this.#file.write(credit, size + debit.length);
  }

  /** Cuts a torn entry off. To be called under an exclusive lock. Returns how many bytes it was. */
  async repair() {
    const torn = await this.tornBytes();
    if (torn > 0) await this.#file.truncate((await this.#file.stat()).size - torn);
    return torn;
  }

  /** Reads all of it. To be called under a lock, shared will do. A torn tail is reported, but is no problem in itself. */
  async audit() {
    const { size } = await this.#file.stat();
    const { buffer } = await this.#file.read({ buffer: Buffer.alloc(size), position: 0 });
    const torn = size % LINE_BYTES;
    const lines = buffer
      .toString('latin1', 0, size - torn)
      .split('\n')
      .slice(0, -1);
    const balances = new Array(ACCOUNTS).fill(0);
    const byWriter = new Map();
    const problems = [];
    let token = 0n;
    for (const [index, line] of lines.entries()) {
      const fields = LINE.exec(line);
      if (fields === null) {
        problems.push(`line ${index + 1} is not an entry: ${line}`);
        break;
      }
      if (Number(fields[1]) !== index + 1) problems.push(`line ${index + 1} has number ${fields[1]}`);
      if (BigInt(fields[2]) <= token)
        problems.push(`the token of line ${index + 1} is not greater than the last`);
      token = BigInt(fields[2]);
      byWriter.set(Number(fields[3]), (byWriter.get(Number(fields[3])) ?? 0) + 1);
      balances[Number(fields[4])] -= Number(fields[5]);
      balances[Number(fields[6])] += Number(fields[7]);
    }
    const sum = balances.reduce((total, balance) => total + balance, 0);
    if (sum !== 0) problems.push(`the balances sum to ${sum}`);
    return { entries: lines.length, torn, token, balances, byWriter, problems };
  }

  close() {
    return this.#file.close();
  }
}
