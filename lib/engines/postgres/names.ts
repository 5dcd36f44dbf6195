// Names as the server has them, and names of the server.
import { createHash } from 'node:crypto';

const LONE_SURROGATE = /\p{Surrogate}/u;

/** Never in UTF-8: begins what is not. */
const UTF16 = Buffer.of(0xff);

/** Different strings have different bytes, also where half of a surrogate pair keeps them from having UTF-8. */
export function encodeName(name: string): Buffer {
  return LONE_SURROGATE.test(name) ? Buffer.concat([UTF16, Buffer.from(name, 'utf16le')]) : Buffer.from(name);
}

export function decodeName(bytes: Buffer): string {
  return bytes[0] === UTF16[0] ? bytes.toString('utf16le', 1) : bytes.toString();
}

/** What stands for the name in a namespace. */
export function keyOf(namespace: string, name: Buffer): Buffer {
  return createHash('sha256').update(`${namespace}\0`).update(name).digest();
}

/** An identifier as it stands in SQL. */
export function quoted(identifier: string): string {
  return `"${identifier.replaceAll('"', '""')}"`;
}
