// Names as the server has them, and names of the server.
import { createHash } from 'node:crypto';

const LONE_SURROGATE = /\p{Surrogate}/u;

/** Never in UTF-8: begins what is not. */
const UTF16 = Buffer.of(0xff);

/** Different strings have different bytes, also where half of a surrogate pair keeps them from having UTF-8. */
function encodeName(name: string): Buffer {
  return LONE_SURROGATE.test(name) ? Buffer.concat([UTF16, Buffer.from(name, 'utf16le')]) : Buffer.from(name);
}

export function decodeName(bytes: Buffer): string {
  return bytes[0] === UTF16[0] ? bytes.toString('utf16le', 1) : bytes.toString();
}

/** A name as the server has it. */
export interface ServerName {
  readonly bytes: Buffer;
  /** What stands for it in its namespace. */
  readonly key: Buffer;
}

const KNOWN_MAX = 1000;

/** The names of a namespace. The last ones are kept, since a hash takes some microseconds. */
export class Names {
  private readonly known = new Map<string, ServerName>();

  constructor(private readonly namespace: string) {}

  of(name: string): ServerName {
    const known = this.known.get(name);
    if (known !== undefined) return known;
    if (this.known.size === KNOWN_MAX) this.known.clear();
    const bytes = encodeName(name);
    const key = createHash('sha256').update(`${this.namespace}\0`).update(bytes).digest();
    const made = { bytes, key };
    this.known.set(name, made);
    return made;
  }
}

/** An identifier as it stands in SQL. */
export function quoted(identifier: string): string {
  return `"${identifier.replaceAll('"', '""')}"`;
}
