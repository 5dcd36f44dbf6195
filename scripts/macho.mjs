// What a Mach-O file says of itself, as far as it decides where it can be loaded, and whether it is sound: what readelf is for
// scripts/elf.mjs. The layouts are those of mach-o/loader.h, mach-o/nlist.h and kern/cs_blobs.h.
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';

const MAGIC_64 = 0xfeedfacf;
const COMMANDS = {
  SYMTAB: 0x2,
  LOAD_DYLIB: 0xc,
  SEGMENT_64: 0x19,
  CODE_SIGNATURE: 0x1d,
  BUILD_VERSION: 0x32,
  RPATH: 0x8000001c,
};
const CPUS = { 16777223: 'x64', 16777228: 'arm64' };
const TYPES = { 6: 'dylib', 8: 'bundle' };
/** In the upper byte of an undefined symbol's description: looked up in all images, which is "flat". */
const DYNAMIC_LOOKUP = 0xfe;
const [N_EXT, N_TYPE, N_PEXT, N_STAB] = [0x01, 0x0e, 0x10, 0xe0];
const N_WEAK_DEF = 0x80;
const VM_PROT_EXECUTE = 4;
const VM_PROT_WRITE = 2;

const CODE_DIRECTORY = 0xfade0c02;
const EMBEDDED_SIGNATURE = 0xfade0cc0;
const ADHOC = 0x2;
const SHA256 = 2;

/** @throws {Error} if it is no 64-bit little-endian Mach-O file, or a part of it lies outside of it */
export function readMachO(file) {
  const bytes = readFileSync(file);
  if (bytes.readUInt32LE(0) !== MAGIC_64) throw new Error(`${file}: not a 64-bit Mach-O file`);
  const result = {
    cpu: CPUS[bytes.readUInt32LE(4)],
    type: TYPES[bytes.readUInt32LE(12)],
    minimum: undefined,
    libraries: [],
    searchPaths: [],
    writableCode: false,
    debugSections: [],
    imports: [],
    exports: [],
    signature: undefined,
  };
  for (const { command, at } of commandsOf(bytes)) {
    if (command === COMMANDS.BUILD_VERSION) {
      const version = bytes.readUInt32LE(at + 12);
      if (bytes.readUInt32LE(at + 8) === 1) result.minimum = `${version >> 16}.${(version >> 8) & 0xff}`;
    }
    if (command === COMMANDS.LOAD_DYLIB)
      result.libraries.push(stringAt(bytes, at + bytes.readUInt32LE(at + 8)));
    if (command === COMMANDS.RPATH) result.searchPaths.push(stringAt(bytes, at + bytes.readUInt32LE(at + 8)));
    if (command === COMMANDS.SEGMENT_64) readSegment(bytes, at, result);
    if (command === COMMANDS.SYMTAB) readSymbols(bytes, at, result);
    if (command === COMMANDS.CODE_SIGNATURE) {
      result.signature = readSignature(bytes, bytes.readUInt32LE(at + 8), bytes.readUInt32LE(at + 12));
    }
  }
  return result;
}

function commandsOf(bytes) {
  const commands = [];
  let at = 32;
  for (let n = bytes.readUInt32LE(16); n > 0; n--) {
    commands.push({ command: bytes.readUInt32LE(at), at });
    at += bytes.readUInt32LE(at + 4);
  }
  return commands;
}

function readSegment(bytes, at, result) {
  const protection = bytes.readInt32LE(at + 60);
  if (protection & VM_PROT_EXECUTE && protection & VM_PROT_WRITE) result.writableCode = true;
  if (stringAt(bytes, at + 8).startsWith('__DWARF')) result.debugSections.push(stringAt(bytes, at + 8));
}

function readSymbols(bytes, at, result) {
  const [symbols, count, strings] = [8, 12, 16].map((offset) => bytes.readUInt32LE(at + offset));
  for (let n = 0; n < count; n++) {
    const entry = symbols + n * 16;
    const type = bytes[entry + 4];
    if (type & N_STAB) {
      result.debugSections.push('a symbol for debuggers');
      continue;
    }
    if (!(type & N_EXT) || type & N_PEXT) continue;
    const name = stringAt(bytes, strings + bytes.readUInt32LE(entry)).replace(/^_/, '');
    const description = bytes.readUInt16LE(entry + 6);
    if (type & N_TYPE) result.exports.push({ name, weak: Boolean(description & N_WEAK_DEF) });
    else result.imports.push({ name, flat: description >> 8 === DYNAMIC_LOOKUP });
  }
}

/** What the kernel checks before it maps a page of it on arm64: a hash for each page, up to the signature itself. */
function readSignature(bytes, at, size) {
  if (bytes.readUInt32BE(at) !== EMBEDDED_SIGNATURE || at + size > bytes.length) return { valid: false };
  for (let n = bytes.readUInt32BE(at + 8); n > 0; n--) {
    const blob = at + bytes.readUInt32BE(at + 12 + 8 * (n - 1) + 4);
    if (bytes.readUInt32BE(blob) !== CODE_DIRECTORY) continue;
    const [flags, hashes, , , pages, limit] = [12, 16, 20, 24, 28, 32].map((offset) =>
      bytes.readUInt32BE(blob + offset),
    );
    const [hashSize, hashType, , pageBits] = bytes.subarray(blob + 36, blob + 40);
    const pageSize = 2 ** pageBits;
    const wrong = Array.from({ length: pages }, (_, page) => page).filter((page) => {
      const content = bytes.subarray(page * pageSize, Math.min((page + 1) * pageSize, limit));
      const expected = bytes.subarray(blob + hashes + page * hashSize, blob + hashes + (page + 1) * hashSize);
      return !createHash('sha256').update(content).digest().subarray(0, hashSize).equals(expected);
    });
    return {
      adhoc: Boolean(flags & ADHOC),
      valid:
        hashType === SHA256 &&
        limit === at &&
        pages === Math.ceil(limit / pageSize) &&
        pages > 0 &&
        wrong.length === 0,
      pages,
    };
  }
  return { valid: false };
}

function stringAt(bytes, at) {
  return bytes.toString('latin1', at, bytes.indexOf(0, at));
}
